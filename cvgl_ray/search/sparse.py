"""Scores of some pairs of two views alone: the candidates that a search has proposed."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse

from cvgl_ray.search.topk import Nearest


@dataclass(frozen=True)
class Pairs:
    """Scores of e pairs: query, reference [e] int32, values [e] float32, sorted by query, then reference."""

    query: np.ndarray
    reference: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]  # numbers of queries and of references

    def of(self, values: np.ndarray) -> "Pairs":
        """Other scores [e] of the same pairs."""
        return replace(self, values=values.astype(np.float32, copy=False))

    def standardised(self) -> "Pairs":
        """The scores less their mean, in standard deviations."""
        mean, spread = self.values.mean(dtype=np.float64), self.values.std(dtype=np.float64)
        return self.of((self.values - np.float32(mean)) / np.float32(max(spread, 1e-12)))

    def less(self, of_query: np.ndarray, of_reference: np.ndarray) -> "Pairs":
        """The scores less a term of each query [nq] and of each reference [nr]."""
        return self.of(self.values - of_query[self.query] - of_reference[self.reference])

    def csls(self, neighbours: int) -> "Pairs":
        """The scores corrected for hubs, see search.csls: a row's hubness is that among its own pairs."""
        return self.less(*(mean / 2 for mean in (self._mean_of_best(side, neighbours) for side in (0, 1))))

    def _mean_of_best(self, side: int, k: int) -> np.ndarray:
        """The mean of each row's k best scores [n], 0 where it has no pair; side 0: of queries."""
        best = self._best(side, k)[1]
        there = best > -np.inf
        total = np.where(there, best, 0).sum(axis=1, dtype=np.float32)
        return total / np.maximum(there.sum(axis=1), 1).astype(np.float32)

    def nearest(self, side: int, k: int) -> tuple[Nearest, np.ndarray]:
        """The k best pairs of each query (side 0) or reference (1), and each row's best pair's place [n].

        -1 and -inf where a row has fewer.
        """
        pairs, scores = self._best(side, k)
        others = np.append(self._rows(1 - side), -1)  # what the place -1 stands for
        return Nearest(others[pairs].astype(np.int64), scores), pairs[:, 0]

    def _best(self, side: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Places among the pairs, and scores, of each row's k best [n, k]; see `nearest`."""
        from cvgl_ray.search.compiled import best_of

        shape = self.shape[side], k
        pairs, best = np.full(shape, -1), np.full(shape, -np.inf, np.float32)
        best_of(self._rows(side), self.values, pairs, best)
        return pairs, best

    def starts(self) -> np.ndarray:
        """Where each query's pairs begin [nq + 1]; int32 as their references, unless there are too many."""
        starts = np.searchsorted(self.query, np.arange(self.shape[0] + 1, dtype=self.query.dtype))
        return starts.astype(np.int32 if len(self.values) < 2**31 else np.int64)

    def _rows(self, side: int) -> np.ndarray:
        return self.reference if side else self.query


def pairs_of(of_query: Nearest, of_reference: Nearest) -> Pairs:
    """All pairs of which either is among the other's nearest. An approximate index's gaps are left out."""
    from cvgl_ray.search.compiled import union

    shape = len(of_query.ids), len(of_reference.ids)
    forth = _matrix(of_query, shape[1])
    back = scipy.sparse.csr_array(_matrix(of_reference, shape[0]).T)
    forth.sort_indices()
    most = forth.nnz + back.nnz
    found = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.float32)
    one, other = ((side.indptr, side.indices, side.data) for side in (forth, back))
    count = union(one, other, *found)
    query, reference, values = (array[:count].copy() for array in found)
    return Pairs(query, reference, values, shape)


def _matrix(near: Nearest, others: int) -> scipy.sparse.csr_array:
    """What each row has found, [n, others] sparse."""
    found = near.ids >= 0
    starts = np.concatenate([[0], found.sum(axis=1).cumsum()])
    return scipy.sparse.csr_array(
        (near.scores[found], near.ids[found].astype(np.int32), starts), shape=(len(near.ids), others)
    )
