"""A data set's cells on disk: which images have some, and their rows read as cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.features.cell_batches import Variants
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.store import FEATURE, FeatureStore
from cvgl_ray.features.strip_cells import Sectors


@dataclass(frozen=True)
class CellStores:
    """Where a data set's cells lie and what they are: by view its images' digests; why some have none."""

    stores: dict[str, FeatureStore]
    digests: dict[str, dict[str, str]]  # by view and image_id
    reasons: dict[str, str] = field(default_factory=dict)  # by digest

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """By view, all that its cells depend on besides the image."""
        return {view: store.recipe for view, store in self.stores.items()}

    def load(self, view: str, image_ids: Sequence[str]) -> list[Cells]:
        """The cells of some images, per side. Raises InputError for an image that has none."""
        self.check(view, image_ids)
        return self.cells(view, self.read(view, [self.digests[view][name] for name in image_ids]))

    def check(self, view: str, image_ids: Sequence[str]) -> None:
        """Raise InputError for images without cells."""
        digests, done = self.digests[view], self.stores[view].digests()
        lacking = [name for name in image_ids if digests[name] not in done]
        if lacking:
            reason = self.reasons.get(digests[lacking[0]], "they are not stored any more")
            raise InputError(
                f"{len(lacking)} of {len(image_ids)} images of view {view!r} have a vector but no cells"
                f" ({lacking[0]}: {reason}); start the same command again, which makes them once more"
            )

    def stored(self, view: str, digests: Sequence[str]) -> bool:
        """Whether the images of these digests all have cells, on the disk that this process sees."""
        return self.stores[view].digests().issuperset(digests)

    def read(self, view: str, digests: Sequence[str]) -> np.ndarray:
        """The stored rows [N, L] of the images of these digests. Raises InputError where one is not there."""
        return self.stores[view].read(digests, FEATURE)

    def cells(self, view: str, rows: np.ndarray) -> list[Cells]:
        """Cells per side of stored rows [N, L]."""
        recipe = self.stores[view].recipe
        return _made(recipe).cells(rows, recipe["cells"]["stride"])

    def has(self, view: str) -> set[str]:
        """Ids of the images that have cells: all but the broken ones."""
        done = self.stores[view].digests()
        return {name for name, digest in self.digests[view].items() if digest in done}


def _made(recipe: Mapping[str, Any]) -> Variants | Sectors:
    """What a recipe says is made of an image."""
    if "strip" in recipe:
        return Sectors.of(recipe["strip"])
    return Variants(tuple(recipe["sides"]), tuple(recipe["headings"]))
