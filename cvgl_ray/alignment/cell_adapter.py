"""The cells' own adapter: normalised by view, attenuated by aligned cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.alignment.cell_source import Source, joined
from cvgl_ray.alignment.poses import Found
from cvgl_ray.em.adapters import ViewCentred
from cvgl_ray.features.cell_projection import sample_cells
from cvgl_ray.features.cells import Cells

CHUNK = 64  # images that are read at a time
# Images per view, or pairs, of which something is learned: evenly drawn of more. Each is read for it, and
# so many have as many cells as are sampled several times over.
LEARNED_OF = 4096


def view_centres(query: Source, references: Source) -> torch.Tensor:
    """Mean unit cell of each view: [2, C]."""
    return torch.stack([_sampled(query).mean(0), _sampled(references).mean(0)])


def _sampled(source: Source) -> torch.Tensor:
    rows = _evenly(len(source))
    parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return sample_cells(map(source.of, parts), len(rows))


def _evenly(count: int) -> np.ndarray:
    return np.arange(0, count, max(1, -(-count // LEARNED_OF)))


@torch.no_grad()
def adapted(cells: Cells, adapter: ViewCentred, view: int, dtype: torch.dtype) -> Cells:
    """Cells as the adapter embeds them: of unit length, zero where they are masked.

    Image by image, so that no bit of one depends on which others are embedded with it.
    """
    maps = torch.empty(cells.maps.shape, dtype=dtype)
    for number in range(len(cells)):
        part = cells.of(slice(number, number + 1))
        rows = part.maps.float().permute(0, 1, 3, 4, 2).contiguous()  # or the product would round otherwise
        embedded = adapter(rows.view(-1, rows.shape[-1]), view).view(rows.shape)
        maps[number] = (embedded * part.masks[..., None])[0].permute(0, 3, 1, 2)
    return replace(cells, maps=maps)


@dataclass(frozen=True)
class Adapted:
    """A source's cells as they are compared: see `adapted`, and `halved` where they are `coarse`."""

    source: Source
    adapter: ViewCentred
    view: int
    dtype: torch.dtype
    coarse: bool = False

    @property
    def held(self) -> None:
        """See Source."""
        return None

    def __len__(self) -> int:
        return len(self.source)

    def of(self, rows: np.ndarray) -> list[Cells]:
        """See Source."""
        parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        return joined((self._compared(self.source.of(part)) for part in parts), len(rows))

    def _compared(self, cells: Sequence[Cells]) -> list[Cells]:
        made = [adapted(one, self.adapter, self.view, self.dtype) for one in cells]
        return [halved(one) for one in made] if self.coarse and not made[0].strip else made


def rows_of_pairs(
    query: Source, references: Source, pairs: tuple[np.ndarray, np.ndarray], poses: Found, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `aligned_rows`, of at most LEARNED_OF of the pairs [p], whose cells alone are read."""
    kept = _evenly(len(pairs[0]))
    each, sides = max(1, limit // max(1, len(kept))), []
    for start in range(0, len(kept), CHUNK):
        few = kept[start : start + CHUNK]
        (one, first), (other, second) = (np.unique(side[few], return_inverse=True) for side in pairs)
        [asked], laid_on = query.of(one), references.of(other)
        sides.append(aligned_rows(asked, laid_on, (first, second), poses.take((few,)), each * len(few)))
    left, right = zip(*sides, strict=True)
    return torch.cat(left), torch.cat(right)


def aligned_rows(
    query: Cells, references: Sequence[Cells], pairs: tuple[np.ndarray, np.ndarray], poses: Found, limit: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frozen cells that lie on each other under the pairs' poses [p], at most about `limit`: [n, C] each."""
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    each = max(1, limit // max(1, len(pairs[0])))
    for number, (one, other) in enumerate(zip(*pairs, strict=True)):
        first, second, both = aligned_pair(query, references, one, other, poses.take((number,)))
        where = both.flatten().nonzero()[:, 0]
        where = where[:: max(1, -(-len(where) // each))]
        sides[0].append(first.flatten(1)[:, where].T.float())
        sides[1].append(second.flatten(1)[:, where].T.float())
    return torch.cat(sides[0]), torch.cat(sides[1])


def aligned_pair(
    query: Cells, references: Sequence[Cells], one: int, other: int, pose: Found
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells [C, h, w] of a query and of a reference that lie on each other, and which of them are valid.

    one, other: their rows; pose: of this pair alone.
    """
    heading, cells = int(pose.heading), references[int(pose.width)]
    n, m = query.maps.shape[-1], cells.maps.shape[-1]
    first, second = query.of(slice(one, one + 1)), cells.of(slice(other, other + 1))
    if query.strip:
        maps, mask = second.maps[0, 0].roll(heading, -1), second.masks[0, 0].roll(heading, -1)
        return first.maps[0, 0], maps, first.masks[0, 0] & mask
    top, left = (round(float(x) * m - (n - m) / 2) for x in (pose.row, pose.column))
    rows, columns = (slice(max(0, shift), min(m, shift + n)) for shift in (top, left))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    return (
        first.maps[0, heading][:, *inner],
        second.maps[0, 0][:, rows, columns],
        first.masks[0, heading][inner] & second.masks[0, 0][rows, columns],
    )


def halved(cells: Cells) -> Cells:
    """Unit cells of twice the size: each the mean of those below it, where half of them or more are valid."""
    side = (cells.maps.shape[-1] + 1) // 2
    n, v, c, h, w = cells.maps.shape
    maps = F.adaptive_avg_pool2d(cells.maps.reshape(n * v, c, h, w).float(), side).view(n, v, c, side, side)
    masks = F.adaptive_avg_pool2d(cells.masks.float(), side) >= 0.5
    return Cells((F.normalize(maps, dim=2) * masks[:, :, None]).to(cells.maps.dtype), masks)
