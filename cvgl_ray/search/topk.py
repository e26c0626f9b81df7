"""The exact top-k: the best rows of one array for those of another, by blocked matrix products."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.search.gpu import best_on

TILE = 2048  # rows of either view in a block: 16 MiB of scores, a few times: the working memory


@dataclass(frozen=True)
class Nearest:
    """The best rows of the other view for each row [n], best first: ids [n, k] int64, scores [n, k].

    An approximate index that finds fewer fills up with id -1 and score -inf.
    """

    ids: np.ndarray
    scores: np.ndarray

    def best(self) -> np.ndarray:
        """Each row's best, [n] int64; -1 where there is none."""
        best: np.ndarray = self.ids[:, 0]
        return best

    def lead(self) -> np.ndarray:
        """How far each row's best is ahead of its second, [n] float32; 0 where there is no second."""
        lead = np.zeros(len(self.ids), dtype=np.float32)
        if self.ids.shape[1] > 1:
            np.subtract(self.scores[:, 0], self.scores[:, 1], out=lead, where=self.ids[:, 1] >= 0)
        return lead

    def first(self, k: int) -> "Nearest":
        """The k best of each row, or as many as there are."""
        return Nearest(self.ids[:, :k], self.scores[:, :k])

    def of(self, rows: np.ndarray) -> "Nearest":
        """What was found for some of the rows [m], in their order."""
        return Nearest(self.ids[rows], self.scores[rows])

    def less(self, hubness: np.ndarray) -> "Nearest":
        """The same candidates, ordered by their score less their own hubness; hubness: of all other rows."""
        scores = self.scores - hubness[self.ids]
        order = np.argsort(-scores, axis=1, kind="stable")
        return Nearest(np.take_along_axis(self.ids, order, axis=1), np.take_along_axis(scores, order, axis=1))


def merge(shards: Sequence[Nearest], first_ids: Sequence[int], k: int) -> Nearest:
    """The k best over shards of the other view, of what each found for the same rows.

    first_ids: of each shard, the id that its row 0 has in the whole view. Ties go to the earlier shard.
    """
    ids = np.hstack(
        [np.where(s.ids < 0, -1, s.ids + first) for s, first in zip(shards, first_ids, strict=True)]
    )
    scores = np.hstack([shard.scores for shard in shards])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Nearest(np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1))


def top_k(query: torch.Tensor, gallery: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best references of every query, best first, by inner product; the order of ties is arbitrary.

    query [Q, D], gallery [G, D] float32, on the CPU. Returns indices [Q, k] int64 into the gallery, and
    scores [Q, k] float32. Raises InputError where k is not 1 to G, or as `check_embeddings`.
    """
    check_embeddings(query, gallery)
    check_k(k, len(gallery))
    found = nearest(query.detach().float().numpy(), gallery.detach().float().numpy(), k)
    return torch.from_numpy(found.ids), torch.from_numpy(found.scores)


def check_k(k: int, gallery: int) -> None:
    """Raise InputError unless 1 <= k <= gallery (a number of references)."""
    if not 1 <= k <= gallery:
        raise InputError(
            f"k = {k} was asked of a gallery of {gallery} references: choose k from 1 to {gallery}"
        )


def check_embeddings(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Raise InputError unless both are finite, of one width, and there is a gallery to search."""
    if len(gallery) == 0:
        raise InputError(
            "the gallery holds no reference, so there is nothing to search: check its root and split"
        )
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"the queries have {query.shape[1]} dimensions and the references {gallery.shape[1]}, which must "
            "be equal: embed both with one model"
        )
    for name, x in (("query", query), ("reference", gallery)):
        bad = int((~x.sum(dim=1).isfinite()).sum())  # a sum is finite only where all of it is
        if bad:
            raise InputError(
                f"{bad} of {len(x)} {name} embeddings hold NaN or infinity, which no score can rank: "
                "take a model that has not diverged"
            )


def nearest_both(
    query: np.ndarray,
    reference: np.ndarray,
    k_query: int,
    k_reference: int,
    hubness: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    tile: int = TILE,
    device: str = "cpu",
) -> tuple[Nearest, Nearest]:
    """The k_query best references of each query, and the k_reference best queries of each reference.

    query [nq, D], reference [nr, D] float32, scored by s = inner product or, given hubness (h_q [nq],
    h_r [nr] float32), by s - h_q - h_r. Either k is cut to the size of the other view. Needs memory for the
    answer and a few blocks of tile x tile scores, whatever the sizes.
    """
    if device != "cpu":
        hub_q, hub_r = hubness or (None, None)
        return (
            _with_own(nearest(query, reference, k_query, hub_r, device=device), hub_q),
            _with_own(nearest(reference, query, k_reference, hub_q, device=device), hub_r),
        )
    sides = _tensor(query), _tensor(reference)
    terms = None if hubness is None else (_tensor(hubness[0])[:, None], _tensor(hubness[1]))
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
            _absorb(of_query, top, left, block, 0)
            _absorb(of_reference, left, top, block, 1)
    return _answer(of_query), _answer(of_reference)


def nearest(
    rows: np.ndarray,
    others: np.ndarray,
    k: int,
    hubness: np.ndarray | None = None,
    *,
    tile: int = TILE,
    device: str = "cpu",
) -> Nearest:
    """The k best of `others` [m, D] for each of `rows` [n, D], float32, by s or s - h, hubness h [m].

    k is cut to m. Needs memory for the answer and a few blocks of tile x tile scores.
    """
    sides = _tensor(rows), _tensor(others)
    term = None if hubness is None else _tensor(hubness)
    if device != "cpu":
        return _answer(best_on(device, *sides, min(k, len(others)), term))
    best = _nothing(len(rows), min(k, len(others)))
    for top in range(0, len(rows), tile):
        for left in range(0, len(others), tile):
            block = sides[0][top : top + tile] @ sides[1][left : left + tile].T
            if term is not None:
                block -= term[left : left + tile]
            _absorb(best, top, left, block, 0)
    return _answer(best)


def _with_own(near: Nearest, hubness: np.ndarray | None) -> Nearest:
    """The scores less the hubness [n] of the rows that ask."""
    return near if hubness is None else Nearest(near.ids, near.scores - hubness[:, None])


def nearest_within(rows: np.ndarray, k: int, *, tile: int = TILE, device: str = "cpu") -> Nearest:
    """The k best of a view's rows [n, D] float32 for each of them, itself among them: half the products."""
    if device != "cpu":
        return nearest(rows, rows, k, device=device)
    side = _tensor(rows)
    best = _nothing(len(rows), min(k, len(rows)))
    for top in range(0, len(rows), tile):
        for left in range(top, len(rows), tile):
            block = side[top : top + tile] @ side[left : left + tile].T
            _absorb(best, top, left, block, 0)
            if left > top:
                _absorb(best, left, top, block, 1)
    return _answer(best)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements="W"))  # torch warns of an object store's memory


_Best = tuple[torch.Tensor, torch.Tensor]  # scores [n, k], falling, and ids [n, k]


def _nothing(count: int, k: int) -> _Best:
    return torch.full((count, k), -torch.inf), torch.full((count, k), -1)


def _absorb(best: _Best, first_row: int, first_id: int, block: torch.Tensor, side: int) -> None:
    """Let a block of scores into the best so far of the rows that lie along its dimension `side`.

    first_row: of those rows; first_id: of the ids along the other dimension. The first block goes through a
    selection; of a later one only those few scores count that beat a row's worst: one comparison finds them.
    """
    count = block.shape[side]
    scores, ids = (part[first_row : first_row + count] for part in best)
    k = scores.shape[1]
    if first_id == 0:
        found = (block.T.contiguous() if side else block).topk(min(k, block.shape[1 - side]), dim=1)
        scores[:, : found.values.shape[1]], ids[:, : found.values.shape[1]] = found.values, found.indices
        return
    worst = scores[:, -1] if side else scores[:, -1:]
    # NumPy compares, and skips what is false, several times faster than torch.
    hits = torch.from_numpy(np.flatnonzero(block.numpy() > worst.numpy()))
    where = hits // block.shape[1], hits % block.shape[1]
    order = where[side].argsort(stable=True)
    rows, others, values = where[side][order], where[1 - side][order], block.view(-1)[hits[order]]
    of_row = torch.bincount(rows, minlength=count)
    place = k + torch.arange(len(rows)) - (of_row.cumsum(0) - of_row)[rows]
    wide = torch.full((count, k + int(of_row.max())), -torch.inf)
    wide_ids = torch.full(wide.shape, -1)
    wide[:, :k], wide_ids[:, :k] = scores, ids
    wide[rows, place], wide_ids[rows, place] = values, others + first_id
    merged = wide.topk(k, dim=1)
    scores[:], ids[:] = merged.values, wide_ids.gather(1, merged.indices)


def _answer(best: _Best) -> Nearest:
    return Nearest(best[1].numpy(), best[0].numpy())
