"""The directions that wide cells are stored along: found in a sample of a data set's images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.errors import InputError
from cvgl_ray.features.batches import Batch, run_here
from cvgl_ray.features.cell_batches import CellWork, Variants
from cvgl_ray.features.cell_projection import projection
from cvgl_ray.features.store import fingerprint
from cvgl_ray.features.strip_cells import Sectors, StripWork
from cvgl_ray.storage.files import write_atomically

SAMPLE = 64  # images per view


def found_directions(
    root: Path,
    recipe: dict[str, Any],
    work: CellWork | StripWork,
    images: Sequence[Batch],
) -> torch.Tensor:
    """Principal directions [c, C] of the cells of a sample of both views' images.

    They are found once and kept below `root`, by the model's recipe, the sample, and what is made of strips.
    Raises InputError where the cells cannot be used, or none of a view's images can be read.
    """
    described = {**recipe, "sample": [batch["digests"] for batch in images]}
    strips = {view: made.recipe() for view, made in work.variants.items() if isinstance(made, Sectors)}
    if strips:
        described["strips"] = strips
    path = root / f"directions-{fingerprint(described)}.npy"
    if not path.exists():
        cells = []
        for made in run_here(images, work):
            if made["refused"] or not len(made["digests"]):
                raise InputError(made["refused"] or f"no image of view {made['view']!r} can be read")
            variants = work.variants[made["view"]]
            rows, stride = made["features"], work.model.stride
            cells.append(
                [variants.parts(rows)] if isinstance(variants, Sectors) else variants.cells(rows, stride)
            )
        found = projection(cells[0], cells[1])
        assert found is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: _save(temporary, found))
    return torch.from_numpy(np.load(path))


def _save(path: Path, directions: torch.Tensor) -> None:
    with path.open("wb") as file:
        np.save(file, directions.numpy())


def sample(catalog: Catalog, digests: Sequence[str], views: Iterable[str]) -> list[Batch]:
    """A batch of a few images per view: the first by their digests, which are as good as drawn."""
    batches = []
    for view in views:
        named = {
            digest: uri
            for own, digest, uri in zip(catalog.rows["view"].to_pylist(), digests, catalog.uris, strict=True)
            if own == view and not digest.startswith("!")
        }
        chosen = sorted(named)[:SAMPLE]
        uris = [named[digest] for digest in chosen]
        batches.append({"view": view, "digests": chosen, "image_ids": chosen, "uris": uris})
    return batches


def fewer(variants: Variants | Sectors) -> Variants | Sectors:
    """One size and a few headings of them."""
    if isinstance(variants, Sectors):
        return variants
    step = max(1, len(variants.headings) // 4)
    return Variants((variants.sides[len(variants.sides) // 2],), variants.headings[::step])
