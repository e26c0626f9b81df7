"""Features as they are made -> part files of the stores, so that a run that is killed loses little."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.features.batches import Batch
from cvgl_ray.progress import progress

# A part file is written when so many rows or bytes are gathered, or after so long: what a killed run loses.
ROWS_PER_PART = 4096
BYTES_PER_PART = 2**27
SECONDS_PER_PART = 30.0


class Rows(Protocol):
    """What rows are appended to: a FeatureStore, or features that are made of them."""

    def append(self, digests: Sequence[str], image_ids: Sequence[str], features: np.ndarray) -> None:
        """Add rows [n, L] float16 of n images."""
        ...


def collect(made: Iterable[Batch], stores: Mapping[str, Rows], images: int) -> dict[str, str]:
    """Append batches with features to the stores, by view; images: how many there are in all.

    Returns digest -> reason of the images that are broken. What came back is kept when it is interrupted.
    Raises InputError where the backbone's features cannot be used.
    """
    reasons: dict[str, str] = {}
    writers = {view: _PartWriter(store) for view, store in stores.items()}
    try:
        with progress("extracting", images, "images") as advance:
            for batch in made:
                if batch["refused"]:
                    raise InputError(batch["refused"])
                reasons |= dict(zip(batch["broken"], batch["reasons"], strict=True))
                writers[batch["view"]].add(batch)
                advance(len(batch["digests"]) + len(batch["broken"]))
    finally:
        for writer in writers.values():
            writer.flush()
    return reasons


class _PartWriter:
    """Gathers batches of one view into part files of a few thousand rows."""

    def __init__(self, store: Rows) -> None:
        self.store = store
        self.batches: list[Batch] = []
        self.flushed = time.monotonic()

    def add(self, batch: Batch) -> None:
        if len(batch["digests"]):
            self.batches.append(batch)
        many = sum(len(kept["digests"]) for kept in self.batches) >= ROWS_PER_PART
        large = sum(kept["features"].nbytes for kept in self.batches) >= BYTES_PER_PART
        if many or large or time.monotonic() - self.flushed > SECONDS_PER_PART:
            self.flush()

    def flush(self) -> None:
        if self.batches:
            digests, ids = (
                [x for kept in self.batches for x in kept[key]] for key in ("digests", "image_ids")
            )
            self.store.append(digests, ids, np.concatenate([kept["features"] for kept in self.batches]))
            self.batches = []
        self.flushed = time.monotonic()
