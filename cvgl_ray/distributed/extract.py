"""Bring the feature store up to date with a catalog: which images lack a row, which are broken.

Batches are cut from the image digests in sorted order. A batch therefore never depends on folder names, on
the number of workers or on what was interrupted before, and neither do its features.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, Pretransform
from cvgl_ray.distributed.hashing import file_digests
from cvgl_ray.distributed.pixel_pipeline import run_batches
from cvgl_ray.errors import InputError
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import FeatureStore, FeatureTable
from cvgl_ray.storage.files import write_atomically

log = logging.getLogger(__name__)

REJECTED = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "view", "reason")])


@dataclass
class Extraction:
    """Features by view, and what it took: images extracted now, found in the store, and rejected."""

    tables: dict[str, FeatureTable] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    extracted: int = 0
    reused: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)


def extract(catalog: Catalog, config: Config, root: Path, rejected_path: Path) -> Extraction:
    """Bring the feature store below `root` up to date with the catalog and return the catalog's features.

    Broken images are left out and named in `rejected_path` (Parquet: image_id, uri, view, reason). Raises
    InputError where their share exceeds features.max_rejected; what was extracted stays in the store.
    """
    backbone = build_backbone(config.backbone)
    views: dict[str, Pretransform] = {config.dataset.query_view: config.pretransform.query}
    views[config.dataset.reference_view] = config.pretransform.reference
    result = Extraction()
    stores = {}
    for view, section in views.items():
        result.recipes[view] = recipe(backbone, config.backbone, section)
        stores[view] = FeatureStore(root, view, result.recipes[view])
        stores[view].open()
    digests = file_digests(catalog.uris)
    batches = list(_missing_batches(catalog, digests, stores, config.features.batch_size))
    result.extracted = sum(len(batch["digests"]) for batch in batches)
    _announce(catalog, config, batches)
    reasons = {digest: "" for digest in digests if digest.startswith("!")}
    if batches:
        reasons |= run_batches(batches, backbone, config, stores)
    result.rejected = _rejected(catalog, digests, reasons)
    result.extracted -= len({digest for digest in reasons if not digest.startswith("!")})
    result.reused = len(catalog) - result.extracted - len(result.rejected)
    table = pa.Table.from_pylist(result.rejected, schema=REJECTED)
    write_atomically(rejected_path, lambda temporary: pq.write_table(table, temporary))
    if len(result.rejected) > config.features.max_rejected * len(catalog):
        first = result.rejected[0]
        raise InputError(
            f"{len(result.rejected)} of {len(catalog)} images are broken (first: {first['uri']}: "
            f"{first['reason']}), more than features.max_rejected = {config.features.max_rejected}; "
            f"mend or remove those named in {rejected_path}"
        )
    for view, store in stores.items():
        rows = [i for i, v in enumerate(catalog.rows["view"].to_pylist()) if v == view]
        ids = catalog.image_ids
        if rows:
            result.tables[view] = store.load([ids[i] for i in rows], [digests[i] for i in rows])
    return result


def _missing_batches(
    catalog: Catalog, digests: Sequence[str], stores: dict[str, FeatureStore], size: int
) -> Iterator[dict[str, Any]]:
    """Batches of images without a row, each of one view: {view, digests, uris, image_ids}."""
    for view, store in stores.items():
        done = store.digests()
        first: dict[str, tuple[str, str]] = {}
        rows = zip(catalog.rows["view"].to_pylist(), digests, catalog.uris, catalog.image_ids, strict=True)
        for image_view, digest, uri, image_id in rows:
            if image_view == view and not digest.startswith("!"):
                first.setdefault(digest, (uri, image_id))
        ordered = sorted(first)
        for start in range(0, len(ordered), size):
            missing = [digest for digest in ordered[start : start + size] if digest not in done]
            if missing:
                uris, ids = zip(*(first[digest] for digest in missing), strict=True)
                yield {"view": view, "digests": missing, "uris": list(uris), "image_ids": list(ids)}


def _announce(catalog: Catalog, config: Config, batches: list[dict[str, Any]]) -> None:
    """Say what the extraction will cost before it starts."""
    costs = {
        config.dataset.query_view: pretransform_of(config.pretransform.query).forwards,
        config.dataset.reference_view: pretransform_of(config.pretransform.reference).forwards,
    }
    images = sum(len(batch["digests"]) for batch in batches)
    forwards = sum(len(batch["digests"]) * costs[batch["view"]] for batch in batches)
    each = ", ".join(f"{view} {cost}" for view, cost in costs.items())
    log.info(
        "features: %d of %d images to extract, %d forwards (an image: %s)",
        images,
        len(catalog),
        forwards,
        each,
    )


def _rejected(catalog: Catalog, digests: Sequence[str], reasons: dict[str, str]) -> list[dict[str, str]]:
    """One record per image that has no feature."""
    views = catalog.rows["view"].to_pylist()
    return [
        {"image_id": image_id, "uri": uri, "view": view, "reason": reasons[digest] or digest[1:]}
        for image_id, uri, view, digest in zip(catalog.image_ids, catalog.uris, views, digests, strict=True)
        if digest in reasons
    ]
