"""Wide cells along fewer directions: what is stored of them has a budget."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.features.cells import Cells

CHANNELS = 96  # kept of wider cells: 2 bytes per channel, cell and variant
SAMPLE_CELLS = 65_536  # of a view, from which means and projections are estimated
CHUNK = 64  # images


def sample_cells(blocks: Iterable[Sequence[Cells]], images: int, limit: int = SAMPLE_CELLS) -> torch.Tensor:
    """Unit rows [n, C] float32 of valid cells, evenly from all images and variants.

    blocks: of a view's cells, some images at a time, one Cells per size; images: how many these are in all.
    """
    rows: dict[int, list[torch.Tensor]] = {}  # by size
    seen: dict[int, int] = {}  # valid cells of the blocks before
    for block in blocks:
        for size, part in enumerate(block):
            step = max(1, images * part.maps[0, :, 0].numel() * len(block) // limit)
            valid = part.masks.expand(len(part.maps), *part.masks.shape[1:]).flatten().nonzero()[:, 0]
            chosen = valid[-seen.get(size, 0) % step :: step]
            image, variant, row, column = np.unravel_index(chosen.numpy(), part.maps[:, :, 0].shape)
            taken = F.normalize(part.maps[image, variant, :, row, column].float(), dim=1)
            rows.setdefault(size, []).append(taken)
            seen[size] = seen.get(size, 0) + len(valid)
    return torch.cat([taken for size in sorted(rows) for taken in rows[size]])


def projection(
    query: Sequence[Cells], reference: Sequence[Cells], channels: int = CHANNELS
) -> torch.Tensor | None:
    """Principal directions [channels, C] of both views' cells about their means; None where C suffices."""
    if query[0].maps.shape[2] <= channels:
        return None
    views = [sample_cells([view], len(view[0])) for view in (query, reference)]
    rows = torch.cat([rows - rows.mean(0) for rows in views]).double()
    return torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :channels].T.float()


def projected(cells: Cells, directions: torch.Tensor | None) -> Cells:
    """Unit cells along these directions [c, C], float16."""
    if directions is None:
        return cells
    parts = [
        torch.einsum("dc,nvcyx->nvdyx", directions, F.normalize(part.float(), dim=2)).half()
        for part in cells.maps.split(CHUNK)
    ]
    return replace(cells, maps=torch.cat(parts))
