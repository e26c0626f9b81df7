"""What an extraction leaves: features by view, and which images have none; and one that needs no store.

`distributed.extract` brings a data set's store up to date; `extract` is the same for a notebook.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.catalog.images import list_images
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Backbone, Config
from cvgl_ray.errors import InputError
from cvgl_ray.features.batches import VectorWork, run_here
from cvgl_ray.features.recipe import build_backbone, pretransform_of
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.table import Table
from cvgl_ray.features.variants import mean_of
from cvgl_ray.progress import progress
from cvgl_ray.storage.files import write_atomically

log = logging.getLogger(__name__)

REJECTED = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "view", "reason")])


@dataclass
class Extraction:
    """Features by view, and what it took: images extracted now, found in the store, and rejected."""

    tables: dict[str, Table] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    extracted: int = 0
    reused: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)


def extract(
    images: str | Path | Sequence[str | Path],
    backbone: str = "",
    *,
    checkpoint: str = "",
    pretrained: bool = True,
    view: str = "query",
    config: Config | None = None,
    batch_size: int = 32,
) -> tuple[list[str], np.ndarray]:
    """Frozen features of images, made in this process, without Ray and without a store.

    images: a folder (path or URI; all images below it) or a list of files. backbone: a timm model's name;
    checkpoint: a local file of its weights; pretrained: whether to take the hub's where none is given; these
    replace the configuration's. view: "query" or "reference", whose pre-transform is applied.

    Returns the image ids (paths below the folder, or the files as given) and [N, D] float32, rows of length
    one. Images that cannot be read are left out with a warning. Raises InputError for a folder without
    images, a backbone that cannot be made, and where no image can be read.
    """
    section = (config or Config()).backbone
    if backbone or checkpoint or not pretrained:
        given = {"name": backbone or section.name, "checkpoint": checkpoint, "pretrained": pretrained}
        section = Backbone.model_validate(section.model_dump() | given)
    if view not in ("query", "reference"):
        raise InputError(f'view is {view!r}; give "query" or "reference"')
    named = _named(images)
    made = build_backbone(section)
    made.try_out()
    pretransform = pretransform_of(getattr((config or Config()).pretransform.settled(), view))
    variants = pretransform.variants
    batches = [
        {"view": view, "digests": part, "image_ids": part, "uris": [named[name] for name in part]}
        for part in (list(named)[start : start + batch_size] for start in range(0, len(named), batch_size))
    ]
    ids: list[str] = []
    rows: list[np.ndarray] = []
    broken: dict[str, str] = {}
    with progress("extracting", len(named), "images") as advance:
        for batch in run_here(batches, VectorWork(made, {view: variants})):
            if batch["refused"]:
                raise InputError(batch["refused"])
            ids += batch["image_ids"]
            if len(batch["image_ids"]):
                vectors = batch["features"].reshape(len(batch["image_ids"]), len(variants), -1)
                rows.append(mean_of(vectors.swapaxes(0, 1)))
            broken |= dict(zip(batch["broken"], batch["reasons"], strict=True))
            advance(len(batch["image_ids"]) + len(batch["broken"]))
    if broken:
        first = next(iter(broken))
        told = f"{len(broken)} of {len(named)} images cannot be read (first: {first}: {broken[first]})"
        if not rows:
            raise InputError(f"{told}; give images that can")
        log.warning("%s; they are left out", told)
    return ids, np.concatenate(rows).astype(np.float32)


def _named(images: str | Path | Sequence[str | Path]) -> dict[str, str]:
    """Addresses by image id. Raises InputError where there are none, or one is given twice."""
    if isinstance(images, str | Path):
        found = dict(list_images(str(images)).images)
        if not found:
            raise InputError(f"the folder {str(images)!r} holds no image that can be read, put images there")
        return found
    files = [str(image) for image in images]
    if not files or len(set(files)) < len(files):
        raise InputError(
            f"{len(files)} images were given, {len(set(files))} of them different; give each once"
        )
    return {name: name for name in files}


def rejected_images(
    catalog: Catalog, digests: Sequence[str], reasons: Mapping[str, str], path: Path, most: float
) -> list[dict[str, str]]:
    """One record per image that has no feature, also written to `path` (Parquet, with REJECTED's columns).

    reasons: by digest. Raises InputError where they are more than the fraction `most` of all images.
    """
    views = catalog.rows["view"].to_pylist()
    rejected = [
        {"image_id": image_id, "uri": uri, "view": view, "reason": reasons[digest] or digest[1:]}
        for image_id, uri, view, digest in zip(catalog.image_ids, catalog.uris, views, digests, strict=True)
        if digest in reasons
    ]
    table = pa.Table.from_pylist(rejected, schema=REJECTED)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    if len(rejected) > most * len(catalog):
        first = rejected[0]
        raise InputError(
            f"{len(rejected)} of {len(catalog)} images are broken (first: {first['uri']}: "
            f"{first['reason']}), more than features.max_rejected = {most}; "
            f"mend or remove those named in {path}"
        )
    return rejected


def load_tables(
    catalog: Catalog, digests: Sequence[str], stores: Mapping[str, FeatureStore]
) -> dict[str, Table]:
    """By view, the features of the catalog's images that have any."""
    tables: dict[str, Table] = {}
    views, ids = catalog.rows["view"].to_pylist(), catalog.image_ids
    for view, store in stores.items():
        rows = [row for row, found in enumerate(views) if found == view]
        if rows:
            tables[view] = store.table([ids[row] for row in rows], [digests[row] for row in rows])
    return tables


def warn_of_copies(catalog: Catalog, digests: Sequence[str]) -> None:
    """Warn where a view's images of one split are the same file several times: they cannot be told apart."""
    rows = zip(catalog.rows["view"].to_pylist(), catalog.rows["split"].to_pylist(), digests, strict=True)
    counts = Counter(row for row in rows if not row[2].startswith("!"))
    totals: Counter[tuple[str, str]] = Counter()
    copies: Counter[tuple[str, str]] = Counter()
    for (view, split, _), count in counts.items():
        totals[view, split] += count
        copies[view, split] += count if count > 1 else 0
    for (view, split), count in copies.items():
        if count:
            log.warning(
                "view %r: %d of the %d images of split %r are the same file as another one; such images "
                "cannot be told apart",
                view,
                count,
                totals[view, split],
                split,
            )
