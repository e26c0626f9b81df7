"""Vectors of variants, stored apart, and an image's vector, which is the mean of its variants'.

A variant's vector is stored by itself in half precision, under a recipe of its own. An image's vector is
always the mean of such rounded ones, whether they were made now or are read: the same bits, without a
forward. So a pre-transform costs the forwards of those of its variants that no earlier one had.
"""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl_ray.features.pretransform import Variant
from cvgl_ray.features.recipe import recipe_alone, variant_recipe
from cvgl_ray.features.store import FEATURE, FeatureStore
from cvgl_ray.features.views import unit_rows

log = logging.getLogger(__name__)

SHARE_OF_FREE = 0.1  # of the disk's free room, which a view's variants may take
ROWS = 256  # of a mean in float32 at a time


def mean_of(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """L2-normalised mean of each image's vectors, V times [n, D] float16 -> [n, D] float16.

    One vector is its own mean, bit for bit. A row does not depend on what other rows there are.
    """
    each = iter(vectors)
    first, total = next(each), None
    for one in each:
        total = torch.from_numpy(first).float() if total is None else total
        total += torch.from_numpy(one)
    if total is None:
        return first
    parts = [unit_rows(part.numpy()) for part in total.split(ROWS)]
    found: np.ndarray = torch.cat([torch.from_numpy(part).half() for part in parts]).numpy()
    return found


class VariantRows:
    """A view's vectors of one variant: apart, or as features of the pre-transform that is this one alone."""

    def __init__(self, features: Path, apart: Path, view: str, recipe: dict[str, Any], variant: Variant):
        """features, apart: the stores' roots; recipe: of the features of any pre-transform of the view."""
        self.store = FeatureStore(apart, view, variant_recipe(recipe, variant), remembers=True)
        alone = recipe_alone(recipe, variant)
        self._alone = FeatureStore(features, view, alone, remembers=True) if alone else None

    def digests(self) -> set[str]:
        """Of the images that have a row."""
        return self.store.digests() | (self._alone.digests() if self._alone else set())

    def read(self, digests: Sequence[str]) -> np.ndarray:
        """The rows of some images, [n, D] float16. Raises InputError where one is not there."""
        here = self.store.holds(digests)
        if self._alone is None or here.all():
            return self.store.read(digests, FEATURE)
        if not here.any():
            return self._alone.read(digests, FEATURE)
        apart, alone = np.flatnonzero(here), np.flatnonzero(~here)
        rows = [
            store.read([digests[row] for row in some.tolist()], FEATURE)
            for store, some in ((self.store, apart), (self._alone, alone))
        ]
        return np.concatenate(rows)[np.argsort(np.concatenate([apart, alone]))]


@dataclass
class Averaged:
    """A view's features as means of its variants: `collecting.collect` appends to it as to a store.

    rows: of each variant; none where variants are neither kept nor read. made: the variants whose vectors
    come, of `images` images at most; the others are read.
    """

    features: FeatureStore
    variants: Sequence[Variant]
    rows: dict[Variant, VariantRows]
    made: tuple[Variant, ...] = ()
    images: int = 0
    _kept: bool | None = field(default=None, init=False)

    def of(self, made: tuple[Variant, ...], images: int) -> "Averaged":
        """The same, where these variants come."""
        return Averaged(self.features, self.variants, self.rows, made, images)

    def append(self, digests: Sequence[str], image_ids: Sequence[str], features: np.ndarray) -> None:
        """Add rows [n, len(made) * D] float16: each variant's, which are kept apart, and their means."""
        vectors = features.reshape(len(digests), len(self.made), -1).swapaxes(0, 1) if self.made else ()
        found = dict(zip(self.made, (np.ascontiguousarray(one) for one in vectors), strict=True))
        if found and self._keeps(features.nbytes // len(digests)):
            for variant, one in found.items():
                self.rows[variant].store.open()
                self.rows[variant].store.append(digests, image_ids, one)
        means = mean_of(found[v] if v in found else self.rows[v].read(digests) for v in self.variants)
        self.features.append(digests, image_ids, means)

    def _keeps(self, row_bytes: int) -> bool:
        """Whether variants are kept: a single one is the feature itself; else where the disk has room."""
        if self._kept is None:
            self._kept = bool(self.rows) and len(self.variants) > 1
            if self._kept:
                needed, folder = self.images * row_bytes, self.features.folder
                free = shutil.disk_usage(folder).free
                self._kept = needed <= SHARE_OF_FREE * free
                if not self._kept:
                    log.info(
                        "features: the variants of view %r are not kept; they would take %.1f GiB, and %.1f "
                        "are free",
                        self.features.view,
                        needed / 2**30,
                        free / 2**30,
                    )
        return self._kept
