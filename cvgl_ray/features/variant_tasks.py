"""Which variants of which images have to be made, and which images are means of what is stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from cvgl_ray.features.batches import Batch
from cvgl_ray.features.pretransform import Variant
from cvgl_ray.features.variants import Averaged


@dataclass(frozen=True)
class Task:
    """Batches of which, view by view, the same variants are made."""

    made: dict[str, tuple[Variant, ...]]
    batches: list[Batch]

    @property
    def forwards(self) -> int:
        """Of the backbone."""
        return sum(len(batch["digests"]) * len(self.made[batch["view"]]) for batch in self.batches)

    def spares(self, views: Mapping[str, Averaged]) -> bool:
        """Whether some of the variants are stored."""
        return any(len(made) < len(set(views[view].variants)) for view, made in self.made.items())

    def images(self, view: str | None = None) -> int:
        """How many there are, of all views or one."""
        return sum(len(batch["digests"]) for batch in self.batches if view in (None, batch["view"]))


def without_forward(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches as `collecting.collect` takes them, whose images' variants are all there."""
    for batch in batches:
        nothing = np.zeros((len(batch["digests"]), 0), np.float16)
        yield {**batch, "features": nothing, "broken": [], "reasons": [], "refused": ""}


def tasks_of(batches: Sequence[Batch], views: Mapping[str, Averaged]) -> tuple[list[Task], list[Batch]]:
    """What has to be made of batches of one view each, and the batches whose images' variants are all there.

    An image is in one task; as a rule there is one.
    """
    by_view: list[list[tuple[str, tuple[Variant, ...], list[Batch]]]] = []
    complete: list[Batch] = []
    for view, averaged in views.items():
        own = [batch for batch in batches if batch["view"] == view]
        groups: dict[tuple[Variant, ...], list[Batch]] = {}
        for batch, missing in zip(own, _missing(own, averaged), strict=True):
            for made in dict.fromkeys(missing):
                rows = [row for row, one in enumerate(missing) if one == made]
                some = {key: [batch[key][row] for row in rows] for key in ("digests", "uris", "image_ids")}
                groups.setdefault(made, []).append({"view": view, **some})
        complete += groups.pop((), [])
        by_view.append([(view, made, some) for made, some in groups.items()])
    tasks = []
    for together in zip_longest(*by_view):
        parts = [part for part in together if part is not None]
        tasks.append(
            Task({view: made for view, made, _ in parts}, [batch for *_, some in parts for batch in some])
        )
    return tasks, complete


def _missing(batches: Sequence[Batch], averaged: Averaged) -> list[list[tuple[Variant, ...]]]:
    """Of each batch's images, the variants that have no row; a variant's rows are looked up at a time."""
    lacking: list[list[tuple[Variant, ...]]] = [[()] * len(batch["digests"]) for batch in batches]
    known: dict[tuple[Variant, ...], tuple[Variant, ...]] = {}  # one tuple for all images that lack the same
    for variant in dict.fromkeys(averaged.variants) if batches else ():
        rows = averaged.rows.get(variant)
        there = rows.digests() if rows else set()
        for batch, missing in zip(batches, lacking, strict=True):
            for row, digest in enumerate(batch["digests"]):
                if digest not in there:
                    one = (*missing[row], variant)
                    missing[row] = known.setdefault(one, one)
    return lacking
