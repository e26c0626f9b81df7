"""Frozen features by Ray Data: images are read and decoded on CPUs, a pool of actors holds the backbone.

One Ray Data row is one batch of images, cut from the digests in sorted order. A batch therefore never depends
on folder names, on the number of workers or on what was interrupted before, and neither do its features.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from cvgl_ray.catalog.filesystem import read_bytes
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import FeatureStore, FeatureTable, file_digest, write_atomically

log = logging.getLogger(__name__)

ROWS_A_PART = 4096  # rows gathered before a part file is written
FILES_A_TASK = 512  # files hashed by one task
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
    views = {config.dataset.query_view: config.pretransform.query}
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
        reasons |= _run(batches, backbone, config, stores)
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


def file_digests(uris: Sequence[str]) -> list[str]:
    """A digest of each file's bytes; of a file that cannot be read, "!" and the reason."""
    hashing = ray.remote(num_cpus=1)(_hash_files)
    tasks = [hashing.remote(uris[i : i + FILES_A_TASK]) for i in range(0, len(uris), FILES_A_TASK)]
    return [digest for digests in ray.get(tasks) for digest in digests]


def _hash_files(uris: Sequence[str]) -> list[str]:
    found = []
    for uri in uris:
        try:
            found.append(file_digest(read_bytes(uri)))
        except OSError as error:
            found.append(f"!the file cannot be read ({error})")
    return found


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


def _run(
    batches: list[dict[str, Any]], backbone: FrozenBackbone, config: Config, stores: dict[str, FeatureStore]
) -> dict[str, str]:
    """Extract the batches into the stores; returns digest -> reason of the images that are broken."""
    on_gpu = config.run.gpu
    actors = config.features.actors or (
        session.cluster_gpus() if on_gpu else max(1, session.cluster_cpus() // 2)
    )
    shared = ray.put(backbone)
    crops = {
        config.dataset.query_view: config.pretransform.query.crops,
        config.dataset.reference_view: config.pretransform.reference.crops,
    }
    pretransforms = {
        config.dataset.query_view: pretransform_of(config.pretransform.query),
        config.dataset.reference_view: pretransform_of(config.pretransform.reference),
    }
    prepared = (
        ray.data.from_items(batches, override_num_blocks=len(batches))
        .map(_Decode(shared, crops), num_cpus=1)
        .map(
            _Embed,  # type: ignore[arg-type]  # Ray constructs the class in its actors
            fn_constructor_args=(shared, pretransforms, "cuda" if on_gpu else "cpu"),
            compute=ray.data.ActorPoolStrategy(size=max(1, actors)),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
        )
    )
    reasons: dict[str, str] = {}
    writers = {view: _PartWriter(store) for view, store in stores.items()}
    try:
        for row in prepared.iter_rows():
            reasons |= dict(zip(row["broken"], row["reasons"], strict=True))
            writers[row["view"]].add(row)
    finally:  # an interrupted extraction keeps what came back
        for writer in writers.values():
            writer.flush()
    return reasons


class _Decode:
    """Ray Data task: one batch of files -> prepared pixels [n, crops, 3, H, W] uint8, and the broken ones."""

    def __init__(self, backbone: ray.ObjectRef, crops: Mapping[str, Sequence[float]]) -> None:
        self.backbone, self.crops = backbone, crops

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        backbone: FrozenBackbone = ray.get(self.backbone)
        pixels, kept, broken, reasons = [], [], [], []
        for row, (digest, uri) in enumerate(zip(batch["digests"], batch["uris"], strict=True)):
            try:
                pixels.append(backbone.prepare(decode(read_bytes(uri)), self.crops[batch["view"]]))
                kept.append(row)
            except (BrokenImageError, OSError) as error:
                broken.append(digest)
                reasons.append(str(error))
        return {
            "view": batch["view"],
            "digests": [batch["digests"][row] for row in kept],
            "image_ids": [batch["image_ids"][row] for row in kept],
            "pixels": np.stack(pixels) if pixels else np.zeros((0, 1, 3, 1, 1), np.uint8),
            "broken": broken,
            "reasons": reasons,
        }


class _Embed:
    """Ray Data actor: holds the backbone; pixels -> features."""

    def __init__(self, backbone: ray.ObjectRef, pretransforms: dict[str, Any], device: str) -> None:
        self.backbone: FrozenBackbone = ray.get(backbone)
        self.backbone.to(device)
        self.pretransforms = pretransforms

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pixels = batch.pop("pixels")
        batch["features"] = (
            self.backbone.embed(pixels, self.pretransforms[batch["view"]]).astype(np.float16)
            if len(pixels)
            else np.zeros((0, 0), np.float16)
        )
        return batch


class _PartWriter:
    """Gathers batches of one view into part files of a few thousand rows."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        if len(row["digests"]):
            self.rows.append(row)
        if sum(len(kept["digests"]) for kept in self.rows) >= ROWS_A_PART:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            digests, ids = ([x for row in self.rows for x in row[key]] for key in ("digests", "image_ids"))
            self.store.append(digests, ids, np.concatenate([row["features"] for row in self.rows]))
            self.rows = []


def _rejected(catalog: Catalog, digests: Sequence[str], reasons: dict[str, str]) -> list[dict[str, str]]:
    """One record per image that has no feature."""
    views = catalog.rows["view"].to_pylist()
    return [
        {"image_id": image_id, "uri": uri, "view": view, "reason": reasons[digest] or digest[1:]}
        for image_id, uri, view, digest in zip(catalog.image_ids, catalog.uris, views, digests, strict=True)
        if digest in reasons
    ]
