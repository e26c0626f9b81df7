"""One batch of images from files to features: what every process that extracts does, with Ray or without.

A batch is a dictionary {view, digests, uris, image_ids} of one view's images. Batches are cut from the image
digests in sorted order. A batch therefore never depends on folder names, on the number of workers or on what
was interrupted before, and neither do its features.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.storage.filesystem import read_bytes

Batch = dict[str, Any]
Pretransforms = Mapping[str, Pretransform]  # by view


def missing_batches(
    catalog: Catalog, digests: Sequence[str], stores: Mapping[str, FeatureStore], size: int
) -> list[Batch]:
    """Batches of at most `size` images without a row, each of one view; digests: as the catalog's rows."""
    batches = []
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
                batches.append({"view": view, "digests": missing, "uris": uris, "image_ids": ids})
    return batches


def decode_batch(batch: Batch, preparing: Preparing, pretransforms: Pretransforms) -> Batch:
    """Files -> {view, digests, image_ids, pixels, broken, reasons}.

    pixels: [n, crops, 3, H, W] uint8 of the n images that could be decoded; broken: the others' digests.
    """
    pretransform = pretransforms[batch["view"]]
    side = preparing.sufficient_side(pretransform)
    pixels, kept, broken, reasons = [], [], [], []
    for row, (digest, uri) in enumerate(zip(batch["digests"], batch["uris"], strict=True)):
        try:
            pixels.append(preparing.prepare(decode(read_bytes(uri), side), pretransform))
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


def embed_batch(
    batch: Batch,
    backbone: FrozenBackbone,
    pretransforms: Pretransforms,
    pool: ThreadPoolExecutor | None = None,
) -> Batch:
    """A decoded batch with `features` [n, D] float16 in place of its pixels, and `refused`.

    refused: why the backbone's features cannot be used, "" where they can. Raised here, it would reach the
    driver as Ray Data's error of no cause.
    """
    pixels = batch.pop("pixels")
    batch |= {"features": np.zeros((0, 0), np.float16), "refused": ""}
    try:
        if len(pixels):
            features = backbone.embed(pixels, pretransforms[batch["view"]], pool)
            batch["features"] = torch.from_numpy(features).half().numpy()  # NumPy's own takes ms per batch
    except InputError as error:
        batch["refused"] = str(error)
    return batch


def run_here(
    batches: Sequence[Batch], backbone: FrozenBackbone, pretransforms: Pretransforms
) -> Iterator[Batch]:
    """The batches' features, in this process: to the bit those of an actor on one core.

    Several threads within one operation would round in another order, so each thread takes a variant.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        backbone.fold()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for batch in batches:
                decoded = decode_batch(batch, backbone.preparing, pretransforms)
                yield embed_batch(decoded, backbone, pretransforms, pool)
    finally:
        torch.set_num_threads(threads)
