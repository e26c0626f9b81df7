"""Exact search of two views in each other: one blocked matrix product serves both directions."""

from dataclasses import dataclass

import numpy as np
import torch

TILE = 2048  # rows of either view in a block: 16 MiB of scores, twice: the search's working memory
STRIP = 512  # scores of a row that are searched at a time


@dataclass(frozen=True)
class Nearest:
    """The best rows of the other view for each row [n], best first: ids [n, k] int64, scores [n, k].

    An approximate index that finds fewer fills up with id -1 and score -inf.
    """

    ids: np.ndarray
    scores: np.ndarray

    def lead(self) -> np.ndarray:
        """How far each row's best is ahead of its second, [n] float32; 0 where there is no second."""
        lead = np.zeros(len(self.ids), dtype=np.float32)
        if self.ids.shape[1] > 1:
            np.subtract(self.scores[:, 0], self.scores[:, 1], out=lead, where=self.ids[:, 1] >= 0)
        return lead


def search_both(
    query: np.ndarray,
    reference: np.ndarray,
    k_query: int,
    k_reference: int,
    hubness: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    tile: int = TILE,
) -> tuple[Nearest, Nearest]:
    """The k_query best references of each query, and the k_reference best queries of each reference.

    query [nq, D], reference [nr, D] float32, scored by s = inner product or, given hubness (h_q [nq],
    h_r [nr] float32), by s - h_q - h_r. Either k is cut to the size of the other view. Needs memory for the
    answer and two blocks of tile x tile scores, whatever the sizes.
    """
    sides = torch.from_numpy(query), torch.from_numpy(reference)
    terms = None if hubness is None else (torch.from_numpy(hubness[0])[:, None], torch.from_numpy(hubness[1]))
    of_query = _nothing(len(query), min(k_query, len(reference)))
    of_reference = _nothing(len(reference), min(k_reference, len(query)))
    buffer = torch.empty(min(tile, len(query)) * min(tile, len(reference)))
    for top in range(0, len(query), tile):
        rows = sides[0][top : top + tile]
        for left in range(0, len(reference), tile):
            columns = sides[1][left : left + tile]
            block = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
            torch.mm(rows, columns.T, out=block)
            if terms is not None:
                block -= terms[0][top : top + tile]
                block -= terms[1][left : left + tile]
            _absorb(of_query, top, block, left)
            _absorb(of_reference, left, block.T.contiguous(), top)
    return _answer(of_query), _answer(of_reference)


_Best = tuple[torch.Tensor, torch.Tensor]  # scores [n, k], falling, and ids [n, k]


def _nothing(count: int, k: int) -> _Best:
    return torch.full((count, k), -torch.inf), torch.full((count, k), -1)


def _absorb(best: _Best, first_row: int, block: torch.Tensor, first_id: int) -> None:
    """Let the scores [n, c] of rows from `first_row` with ids from `first_id` into the best so far.

    Strip by strip: the more strips a row has seen, the fewer hold anything better for it, and one pass for
    the maximum spares those the selection.
    """
    scores, ids = (side[first_row : first_row + len(block)] for side in best)
    k = scores.shape[1]
    for start in range(0, block.shape[1], STRIP):
        strip = block[:, start : start + STRIP]
        better = (strip.amax(dim=1) > scores[:, -1]).nonzero().squeeze(1)
        found = strip[better].topk(min(k, strip.shape[1]), dim=1)
        merged = torch.cat([scores[better], found.values], dim=1).topk(k, dim=1)
        candidates = torch.cat([ids[better], found.indices + (first_id + start)], dim=1)
        scores[better], ids[better] = merged.values, candidates.gather(1, merged.indices)


def _answer(best: _Best) -> Nearest:
    return Nearest(best[1].numpy(), best[0].numpy())
