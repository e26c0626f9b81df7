"""Queries laid on references by blocks, so that only what is compared at a time lies in memory.

What a block holds changes no bit: a query is scored by itself, and references in the blocks of `poses`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cvgl_ray.alignment.cell_source import Held, Source, first_of, row_bytes
from cvgl_ray.alignment.poses import BLOCK, Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.features.cells import Cells

QUERIES = 64  # of a block, at most: more of them save nothing
COPIES = 3  # of a block's cells, about: as stored, in float while they are adapted, as compared

Pairwise = Callable[[Cells, Sequence[Cells], PosePrior, np.ndarray | None], Found]  # such as score_pairs
Score = Callable[[Source, Source, PosePrior, np.ndarray | None], Found]  # the same, of cells to be read


def score_rows(
    query: Source,
    references: Source,
    prior: PosePrior,
    candidates: np.ndarray | None = None,
    *,
    room: float = math.inf,
    score: Pairwise = score_pairs,
) -> Found:
    """See `score_pairs`: the best pose of each query with each of its candidates, arrays [Q, k].

    room: bytes that the cells of a block may take, about; a query and its candidates, or BLOCK references,
    are the least. Of references that are not held only a block's candidates are read, or BLOCK at a time.
    """
    cells = references.held
    if cells is None and candidates is None and first_of(query)[0].strip:
        cells = references.of(np.arange(len(references)))  # a row of sectors each: they are small
    beside = BLOCK if candidates is None else candidates.shape[1]
    each = COPIES * (row_bytes(query) + (0 if cells is not None else beside * row_bytes(references)))
    size = int(max(1, min(QUERIES, room // each)))

    def scored(rows: np.ndarray) -> Found:
        [asked] = query.of(rows)
        chosen = None if candidates is None else candidates[rows]
        if cells is not None:
            return score(asked, cells, prior, chosen)
        if chosen is not None:
            named, places = np.unique(chosen, return_inverse=True)
            return score(asked, references.of(named), prior, places.reshape(chosen.shape))
        blocks = np.split(np.arange(len(references)), range(BLOCK, len(references), BLOCK))
        return Found.joined([score(asked, references.of(block), prior, None) for block in blocks], axis=1)

    return Found.joined(
        [scored(rows) for rows in np.split(np.arange(len(query)), range(size, len(query), size))]
    )


def in_memory(score: Pairwise) -> Score:
    """A score by this process, which holds all references."""

    def scored(query: Source, references: Source, prior: PosePrior, candidates: np.ndarray | None) -> Found:
        held = Held(references.of(np.arange(len(references))))
        return score_rows(query, held, prior, candidates, score=score)

    return scored
