"""A found pose made finer than its grid, without a forward: heading, ground width and position.

The reference's cells are read where the query's fall, turned, scaled and shifted a little; of all
combinations of a step either way the best is taken, and the steps are halved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.alignment.poses import Found
from cvgl_ray.features.cells import Cells

STEPS = (7.5, 0.08, 0.5, 0.5)  # degrees, logarithm of the width, cells down and right
HALVINGS = 4


@dataclass(frozen=True)
class FinePoses:
    """Poses of pairs, arrays [p] float32.

    heading: degrees by which the query is turned counter-clockwise to lie as the reference does, in [0, 360);
    ratio: the query's ground width over the reference's; row, column: of the query's middle, in shares of the
    reference's side from the reference's middle, down and to the right.
    """

    heading: np.ndarray
    ratio: np.ndarray
    row: np.ndarray
    column: np.ndarray


@torch.inference_mode()
def refine(
    query: Cells,
    references: Sequence[Cells],
    pairs: tuple[np.ndarray, np.ndarray],
    poses: Found,
    headings: Sequence[float],
) -> FinePoses:
    """Finer poses of pairs [p]. Cells: as in `poses.score_pairs`; headings: degrees of the variants."""
    rows = []
    for number, (one, other) in enumerate(zip(*pairs, strict=True)):
        index, width = poses.heading[number], poses.width[number]
        first, second = query.of(slice(one, one + 1)), references[width].of(slice(other, other + 1))
        n, m = first.maps.shape[-1], second.maps.shape[-1]
        pose = np.array([0.0, 0.0, poses.row[number] * m, poses.column[number] * m])
        sides = (
            first.maps[0, index].float(),
            first.masks[0, index],
            second.maps[0, :1].float(),
            second.masks[0, :1],
        )
        for halving in range(HALVINGS + 1):
            steps = np.array(STEPS) / 2**halving
            tried = pose + np.array(list(product((-1, 0, 1), repeat=4))) * steps
            pose = tried[int(_scores(*sides, tried).argmax())]
        rows.append(((headings[index] + pose[0]) % 360, n / m * np.exp(pose[1]), pose[2] / m, pose[3] / m))
    return FinePoses(*np.array(rows, np.float32).reshape(-1, 4).T)


def _scores(
    query: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, valid: torch.Tensor, tried: np.ndarray
) -> torch.Tensor:
    """Scores [t] of poses tried [t, 4]: query [C, n, n], reference [1, C, m, m], their masks of cells."""
    n, m = query.shape[-1], reference.shape[-1]
    angle, scale, row, column = torch.from_numpy(tried.astype(np.float32)).T
    cos, sin = (part * scale.exp() * (n / m) for part in (angle.deg2rad().cos(), angle.deg2rad().sin()))
    # Turning the query's content counter-clockwise by `angle`: where its cell at (x, y) then lies.
    matrix = torch.stack(
        [torch.stack([cos, sin, column * 2 / m], 1), torch.stack([-sin, cos, row * 2 / m], 1)], dim=1
    )
    grid = F.affine_grid(matrix, [len(tried), 1, n, n], align_corners=False)
    wide = (len(tried), -1, -1, -1)
    read = F.normalize(F.grid_sample(reference.expand(wide), grid, align_corners=False), dim=1)
    there = F.grid_sample(valid.float()[:, None].expand(wide), grid, align_corners=False)[:, 0] > 0.5
    both = there & mask
    return ((read * query).sum(1) * both).sum((1, 2)) * both.sum((1, 2)).clamp(min=1).rsqrt()
