"""Wide cells along fewer directions: what is stored of them has a budget."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.features.cells import Cells

CHANNELS = 96  # kept of wider cells: 2 bytes per channel, cell and variant
SAMPLE_CELLS = 65_536  # of a view, from which means and projections are estimated
CHUNK = 64  # images


def sample_cells(cells: Sequence[Cells], limit: int = SAMPLE_CELLS) -> torch.Tensor:
    """Unit rows [n, C] float32 of valid cells, evenly from all images and variants."""
    rows = []
    for part in cells:
        step = max(1, part.maps[:, :, 0].numel() * len(cells) // limit)
        valid = part.masks.expand(len(part.maps), *part.masks.shape[1:]).flatten().nonzero()[:, 0][::step]
        image, variant, row, column = np.unravel_index(valid.numpy(), part.maps[:, :, 0].shape)
        rows.append(F.normalize(part.maps[image, variant, :, row, column].float(), dim=1))
    return torch.cat(rows)


def projection(
    query: Sequence[Cells], reference: Sequence[Cells], channels: int = CHANNELS
) -> torch.Tensor | None:
    """Principal directions [channels, C] of both views' cells about their means; None where C suffices."""
    if query[0].maps.shape[2] <= channels:
        return None
    views = [sample_cells(view) for view in (query, reference)]
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
