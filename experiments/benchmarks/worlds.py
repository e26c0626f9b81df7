"""Features of two views to benchmark on: of a rendered world, or tables that somebody extracted."""

import tempfile
from pathlib import Path

import numpy as np

from cvgl_ray.catalog import layouts
from cvgl_ray.config import load_config
from cvgl_ray.features.pixels import decode
from cvgl_ray.features.recipe import build_backbone, pretransform_of
from cvgl_ray.features.table import FeatureTable, read_table, select
from cvgl_ray.storage.filesystem import read_bytes
from cvgl_ray.synthetic.untrained import UNTRAINED
from cvgl_ray.synthetic.writer import write_world


def two_tables(tables: tuple[str, str] | None, places: int) -> tuple[FeatureTable, FeatureTable]:
    """The (drone, satellite) feature tables at two paths, or those of a world of `places` rendered now."""
    if tables:
        query, reference = (read_table(*one) for one in zip(tables, ("drone", "satellite"), strict=True))
        return select(query), select(reference)
    with tempfile.TemporaryDirectory() as folder:
        return _rendered(Path(folder) / "world", places)


def place_of(table: FeatureTable) -> np.ndarray:
    """Place ids [N], the folder of each image: for the figures of a benchmark, never for a training."""
    return np.array([image_id.split("/")[-2] for image_id in table.image_ids])


def _rendered(root: Path, places: int) -> tuple[FeatureTable, FeatureTable]:
    write_world(root, places=places, test_places=1, views=2, image_size=96)
    config = load_config(None, (f"dataset.root={root}", *UNTRAINED))
    backbone = build_backbone(config.backbone)
    catalog = layouts.scan("university1652", str(root), "drone", "satellite", ())
    found = []
    views = config.pretransform.settled()
    for view, section in (("drone", views.query), ("satellite", views.reference)):
        images = catalog.select(view=view, split="train")
        pretransform = pretransform_of(section)
        rows = [
            backbone.embed(
                backbone.preparing.prepare(decode(read_bytes(uri)), pretransform)[None], pretransform
            )
            for uri in images.uris
        ]
        found.append(FeatureTable(images.image_ids, np.concatenate(rows).astype(np.float16)))
    return found[0], found[1]
