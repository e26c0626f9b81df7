"""Pixels to features by Ray Data: images are decoded on CPUs, a pool of actors holds the backbone.

One Ray Data row is one batch of images, so that a batch stays whole whatever Ray does with blocks.
"""

import time
from typing import Any

import numpy as np
import ray
import torch

from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.resources import check_needs, extraction_need, said_while_awaited
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.recipe import pretransform_of
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.progress import progress
from cvgl_ray.storage.filesystem import read_bytes

# A part file is written when so many rows are gathered, or after so long: what a killed run loses.
ROWS_A_PART = 4096
SECONDS_A_PART = 30.0


def run_batches(
    batches: list[dict[str, Any]], backbone: FrozenBackbone, config: Config, stores: dict[str, FeatureStore]
) -> dict[str, str]:
    """Extract batches {view, digests, uris, image_ids} into the stores, by view.

    Returns digest -> reason of the images that are broken. What came back is kept when it is interrupted.
    """
    reasons: dict[str, str] = {}
    writers = {view: _PartWriter(store) for view, store in stores.items()}
    images = sum(len(batch["digests"]) for batch in batches)
    need = extraction_need(config.features.actors, gpu=config.run.gpu)
    check_needs([need])
    try:
        with (
            said_while_awaited("extraction", need) as begun,
            progress("extracting", images, "images") as advance,
        ):
            for row in _pipeline(batches, backbone, config).iter_rows():
                begun()
                if row["refused"]:
                    raise InputError(row["refused"])
                reasons |= dict(zip(row["broken"], row["reasons"], strict=True))
                writers[row["view"]].add(row)
                advance(len(row["digests"]) + len(row["broken"]))
    finally:
        for writer in writers.values():
            writer.flush()
    return reasons


def _pipeline(batches: list[dict[str, Any]], backbone: FrozenBackbone, config: Config) -> ray.data.Dataset:
    """Batches -> rows {view, digests, image_ids, features, broken, reasons, refused}."""
    gpu = config.run.gpu
    shared = ray.put(backbone)
    pretransforms = {
        config.dataset.query_view: pretransform_of(config.pretransform.query),
        config.dataset.reference_view: pretransform_of(config.pretransform.reference),
    }
    ray.data.DataContext.get_current().enable_progress_bars = False  # `progress` counts images instead
    return (
        ray.data.from_items(batches, override_num_blocks=len(batches))
        .map(_Decode(shared, pretransforms), num_cpus=1)
        .map(
            _Embed,  # type: ignore[arg-type]  # Ray constructs the class in its actors
            fn_constructor_args=(shared, pretransforms, "cuda" if gpu else "cpu"),
            compute=_pool(config.features.actors, session.cluster_gpus() if gpu else session.cluster_cpus()),
            num_cpus=0 if gpu else 1,
            num_gpus=1 if gpu else 0,
        )
    )


def _pool(asked: int, present: int) -> ray.data.ActorPoolStrategy:
    """As many actors as asked for; if none, one a GPU or CPU that is up now, and more as the cluster grows.

    On CPUs Ray fuses both steps into the actors, so one actor a core keeps every core at work.
    """
    if asked:
        return ray.data.ActorPoolStrategy(size=asked)
    return ray.data.ActorPoolStrategy(min_size=max(1, present), max_size=None)


class _Decode:
    """Ray Data task: one batch of files -> prepared pixels [n, crops, 3, H, W] uint8, and the broken ones."""

    def __init__(self, backbone: ray.ObjectRef, pretransforms: dict[str, Pretransform]) -> None:
        self.backbone, self.pretransforms = backbone, pretransforms

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        backbone: FrozenBackbone = ray.get(self.backbone)
        pretransform = self.pretransforms[batch["view"]]
        side = backbone.sufficient_side(pretransform)
        pixels, kept, broken, reasons = [], [], [], []
        for row, (digest, uri) in enumerate(zip(batch["digests"], batch["uris"], strict=True)):
            try:
                pixels.append(backbone.prepare(decode(read_bytes(uri), side), pretransform))
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

    def __init__(self, backbone: ray.ObjectRef, pretransforms: dict[str, Pretransform], device: str) -> None:
        torch.set_num_threads(1)  # an actor holds one core; Ray's own limit yields to OMP_NUM_THREADS
        self.backbone: FrozenBackbone = ray.get(backbone)
        self.backbone.to(device)
        self.backbone.fold()
        self.pretransforms = pretransforms

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pixels = batch.pop("pixels")
        batch |= {"features": np.zeros((0, 0), np.float16), "refused": ""}
        try:
            if len(pixels):
                features = self.backbone.embed(pixels, self.pretransforms[batch["view"]])
                batch["features"] = features.astype(np.float16)
        except InputError as error:  # raised here, it would reach the driver as Ray Data's error of no cause
            batch["refused"] = str(error)
        return batch


class _PartWriter:
    """Gathers batches of one view into part files of a few thousand rows."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.rows: list[dict[str, Any]] = []
        self.flushed = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        if len(row["digests"]):
            self.rows.append(row)
        full = sum(len(kept["digests"]) for kept in self.rows) >= ROWS_A_PART
        if full or time.monotonic() - self.flushed > SECONDS_A_PART:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            digests, ids = ([x for row in self.rows for x in row[key]] for key in ("digests", "image_ids"))
            self.store.append(digests, ids, np.concatenate([row["features"] for row in self.rows]))
            self.rows = []
        self.flushed = time.monotonic()
