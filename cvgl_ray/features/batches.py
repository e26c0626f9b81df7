"""One batch of images from files to features: what every process that extracts does, with Ray or without.

A batch is a dictionary {view, digests, uris, image_ids} of one view's images. Batches are cut from the image
digests in sorted order. A batch therefore never depends on folder names, on the number of workers or on what
was interrupted before, and neither do its features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import BrokenImageError, read_pictures
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.pretransform import Variant, by_crop
from cvgl_ray.features.store import FeatureStore

Batch = dict[str, Any]
Variants = Mapping[str, Sequence[Variant]]  # by view, different ones, crop by crop


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


class Work(Protocol):
    """What is made of batches: files are decoded wherever there is a core, then a model takes the pixels."""

    def decoding(self) -> Callable[[Batch], Batch]:
        """The first half, which travels without the model: see `decode_batch`."""
        ...

    def to(self, device: str) -> None:
        """Move the model to a device."""
        ...

    def fold(self) -> None:
        """Make the model quicker."""
        ...

    def __call__(self, batch: Batch, pool: ThreadPoolExecutor | None = None) -> Batch:
        """The second half: see `embed_batch`."""
        ...


@dataclass(frozen=True)
class VectorWork:
    """A backbone's vectors of each view's variants of an image, [V * D] one after the other."""

    backbone: FrozenBackbone
    variants: Variants

    def decoding(self) -> Callable[[Batch], Batch]:
        """See Work."""
        return partial(decode_batch, preparing=self.backbone.preparing, variants=self.variants)

    def to(self, device: str) -> None:
        """See Work."""
        self.backbone.to(device)

    def fold(self) -> None:
        """See Work."""
        self.backbone.fold()

    def __call__(self, batch: Batch, pool: ThreadPoolExecutor | None = None) -> Batch:
        """See Work."""
        variants = self.variants[batch["view"]]
        return embed_batch(
            batch, lambda pixels: self.backbone.vectors(pixels, variants, pool).reshape(len(pixels), -1)
        )


def decode_batch(batch: Batch, preparing: Preparing, variants: Variants) -> Batch:
    """Files -> {view, digests, image_ids, pixels, broken, reasons}.

    pixels: [n, crops, 3, H, W] uint8 of the n images that could be decoded, once per crop of the view's
    variants; broken: the others' digests.
    """
    crops = [made[0] for made in by_crop(variants[batch["view"]]).values()]
    sides = [preparing.sufficient_side(crop) for crop in crops]

    def prepare(images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([preparing.picture(*one) for one in zip(images, crops, strict=True)])

    return decoded(batch, sides, prepare)


def decoded(
    batch: Batch, sides: Sequence[int], prepare: Callable[[Sequence[Image.Image]], np.ndarray]
) -> Batch:
    """As `decode_batch`, whatever is prepared of a file's pictures; sides: as `read_pictures` takes them."""
    pixels, kept, broken, reasons = [], [], [], []
    for row, (digest, uri) in enumerate(zip(batch["digests"], batch["uris"], strict=True)):
        try:
            pixels.append(prepare(read_pictures(uri, sides)))
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


def embed_batch(batch: Batch, embed: Callable[[np.ndarray], np.ndarray]) -> Batch:
    """A decoded batch with `features` [n, D] float16 in place of its pixels, and `refused`.

    embed: pixels [n, ...] -> [n, D] of any float type. refused: why the model's features cannot be used, ""
    where they can. Raised here, it would reach the driver as Ray Data's error of no cause.
    """
    pixels = batch.pop("pixels")
    batch |= {"features": np.zeros((0, 0), np.float16), "refused": ""}
    try:
        if len(pixels):
            features = embed(pixels)
            batch["features"] = torch.from_numpy(features).half().numpy()  # NumPy's own takes ms per batch
    except InputError as error:
        batch["refused"] = str(error)
    return batch


def run_here(batches: Sequence[Batch], work: Work) -> Iterator[Batch]:
    """The batches' features, in this process: to the bit those of an actor on one core.

    Several threads within one operation would round in another order, so each thread takes a variant.
    """
    with one_thread() as threads:
        work.fold()
        decode_each = work.decoding()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for batch in batches:
                yield work(decode_each(batch), pool)


@contextmanager
def one_thread() -> Iterator[int]:
    """torch's operations on one thread, which round alike wherever they run; gives how many it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
