"""Sections that say which images there are and where their features come from."""

from typing import Literal

from pydantic import Field, model_validator

from cvgl_ray.config.section import Count, CountOrZero, Section

Layout = Literal[
    "auto", "university1652", "folders", "cvusa", "cvact", "cvact-test", "vigor-same", "vigor-cross",
    "sues200", "sues200-150", "sues200-200", "sues200-250", "sues200-300", "denseuav", "gta-same",
    "gta-cross", "uav-visloc", "uav-visloc-01", "uav-visloc-02", "uav-visloc-03", "uav-visloc-04",
    "uav-visloc-05", "uav-visloc-06", "uav-visloc-07", "uav-visloc-08", "uav-visloc-09", "uav-visloc-10",
    "uav-visloc-11", "utm", "utm-spots",
]  # fmt: skip


class Dataset(Section):
    """Which images: a folder layout and its root."""

    layout: Layout = "auto"
    """how the folders are read; auto: as two folders of images, or as University-1652, whichever is there;
    any other: as that data set is published, which its module in cvgl_ray/catalog describes"""
    root: str = ""
    """local path, or a URI that pyarrow.fs opens; may be empty where features.table is given"""
    query_view: str = "drone"
    """names the folders of the images to be located"""
    reference_view: str = "satellite"
    """names the folders of the images to search"""
    distractors: tuple[str, ...] = ()
    """folders of further reference images that join the gallery"""

    @model_validator(mode="after")
    def _views_differ(self) -> "Dataset":
        if self.query_view == self.reference_view:
            raise ValueError(f"query_view and reference_view are both {self.query_view!r}; name two views")
        return self


class Features(Section):
    """How features are extracted and where they come from."""

    table: str = ""
    """Parquet file or folder (image_id, view, feature; where dataset.root is "", also split) that replaces
    extraction"""
    cache: str = ""
    """folder of extracted features, beside which variants and cells lie; empty: DIR/features"""
    batch_size: Count = 64
    """images per forward batch"""
    actors: CountOrZero = 0
    """how many copies of the backbone work at a time; 0: one per GPU or CPU, as many as there are"""
    max_rejected: float = Field(default=0.05, ge=0.0, le=1.0)
    """share of broken images above which the run stops"""
    verify: bool = False
    """read every image again; else a file is known by its size and times, as long as they do not change"""

    @model_validator(mode="after")
    def _cache_is_a_folder(self) -> "Features":
        if "://" in self.cache:
            raise ValueError(f"cache {self.cache!r} is a URI; give a folder that the job's machine sees")
        return self
