"""The cells' own adapter: normalised by view, attenuated by aligned cells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.alignment.poses import Found
from cvgl_ray.alignment.yaw import aligned_sectors
from cvgl_ray.em.adapters import ViewCentred
from cvgl_ray.features.cell_projection import sample_cells
from cvgl_ray.features.cells import Cells

CHUNK = 64  # images


def view_centres(query: Sequence[Cells], reference: Sequence[Cells]) -> torch.Tensor:
    """Mean unit cell of each view: [2, C]."""
    return torch.stack([sample_cells(query).mean(0), sample_cells(reference).mean(0)])


@torch.no_grad()
def adapted(cells: Cells, adapter: ViewCentred, view: int, dtype: torch.dtype) -> Cells:
    """Cells as the adapter embeds them: of unit length, zero where they are masked."""
    parts = []
    for start in range(0, len(cells), CHUNK):
        part = cells.of(slice(start, start + CHUNK))
        rows = part.maps.float().permute(0, 1, 3, 4, 2)
        embedded = adapter(rows.reshape(-1, rows.shape[-1]), view).view(*rows.shape[:-1], -1)
        parts.append((embedded * part.masks[..., None]).permute(0, 1, 4, 2, 3).to(dtype))
    return replace(cells, maps=torch.cat(parts))


def aligned_rows(
    query: Cells, references: Sequence[Cells], pairs: tuple[np.ndarray, np.ndarray], poses: Found, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frozen cells that lie on each other under the pairs' poses [p], at most about `limit`: [n, C] each."""
    if query.strip:
        return aligned_sectors(query, references[0], pairs, poses.heading, limit)
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    n = query.maps.shape[-1]
    each = max(1, limit // max(1, len(pairs[0])))
    for number, (one, other) in enumerate(zip(*pairs, strict=True)):
        cells = references[poses.width[number]]
        m = cells.maps.shape[-1]
        top, left = (round(float(x[number]) * m - (n - m) / 2) for x in (poses.row, poses.column))
        rows, columns = (slice(max(0, shift), min(m, shift + n)) for shift in (top, left))
        own = tuple(
            slice(part.start - shift, part.stop - shift) for part, shift in ((rows, top), (columns, left))
        )
        heading = poses.heading[number]
        first, second = query.of(slice(one, one + 1)), cells.of(slice(other, other + 1))
        both = first.masks[0, heading][own] & second.masks[0, 0][rows, columns]
        where = both.flatten().nonzero()[:, 0]
        where = where[:: max(1, -(-len(where) // each))]
        sides[0].append(first.maps[0, heading][(slice(None), *own)].flatten(1)[:, where].T.float())
        sides[1].append(second.maps[0, 0][:, rows, columns].flatten(1)[:, where].T.float())
    return torch.cat(sides[0]), torch.cat(sides[1])


def halved(cells: Cells) -> Cells:
    """Unit cells of twice the size: each the mean of those below it, where half of them or more are valid."""
    side = (cells.maps.shape[-1] + 1) // 2
    n, v, c, h, w = cells.maps.shape
    maps = F.adaptive_avg_pool2d(cells.maps.reshape(n * v, c, h, w).float(), side).view(n, v, c, side, side)
    masks = F.adaptive_avg_pool2d(cells.masks.float(), side) >= 0.5
    return Cells((F.normalize(maps, dim=2) * masks[:, :, None]).to(cells.maps.dtype), masks)
