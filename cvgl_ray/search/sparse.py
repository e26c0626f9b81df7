"""Scores of some pairs of two views alone: the candidates that a search has proposed."""

from dataclasses import dataclass, replace

import numpy as np

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
        starts, keys = self.starts(side), np.sort(self._keys(side))
        total, found = np.zeros(self.shape[side], np.float32), np.minimum(np.diff(starts), k)
        for rank in range(k):
            has = found > rank
            total[has] += _value(keys[starts[:-1][has] + rank])
        return total / np.maximum(found, 1).astype(np.float32)

    def nearest(self, side: int, k: int) -> Nearest:
        """The k best pairs of each query (side 0) or reference (1), best first; -1 and -inf where fewer."""
        owner, other, count = self._rows(side), self._rows(1 - side), self.shape[side]
        order = np.argsort(self._keys(side), kind="stable")
        rank = np.arange(len(order)) - self.starts(side)[owner[order]]
        order, rank = order[rank < k], rank[rank < k]
        ids, scores = np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
        ids[owner[order], rank], scores[owner[order], rank] = other[order], self.values[order]
        return Nearest(ids, scores)

    def starts(self, side: int) -> np.ndarray:
        """Where each row's pairs begin [n + 1], were they sorted by query (side 0) or by reference (1)."""
        return np.concatenate([[0], np.bincount(self._rows(side), minlength=self.shape[side]).cumsum()])

    def _rows(self, side: int) -> np.ndarray:
        return self.reference if side else self.query

    def _keys(self, side: int) -> np.ndarray:
        """Integers that sort by row, then by falling score; NumPy sorts one far quicker than by two keys."""
        return self._rows(side).astype(np.uint64) << np.uint64(32) | _falling(self.values)


def pairs_of(of_query: Nearest, of_reference: Nearest) -> Pairs:
    """All pairs of which either is among the other's nearest. An approximate index's gaps are left out."""
    shape = len(of_query.ids), len(of_reference.ids)
    keys, values = [], []
    for near, by_query in ((of_query, True), (of_reference, False)):
        rows, columns = np.nonzero(near.ids >= 0)
        others = near.ids[rows, columns]
        query, reference = (rows, others) if by_query else (others, rows)
        keys.append(query.astype(np.int64) * shape[1] + reference)
        values.append(near.scores[rows, columns])
    key, first = np.unique(np.concatenate(keys), return_index=True)
    query, reference = np.divmod(key, max(1, shape[1]))
    return Pairs(
        query.astype(np.int32),
        reference.astype(np.int32),
        np.concatenate(values)[first].astype(np.float32),
        shape,
    )


def _falling(values: np.ndarray) -> np.ndarray:
    """Integers [e] uint64 below 2^32 in the order of falling float32 values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (~rising).astype(np.uint64)


def _value(keys: np.ndarray) -> np.ndarray:
    """What `_falling` was made of, from the lower 32 bits of keys."""
    rising = ~(keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    bits = np.where(rising >> 31, rising & np.uint32(0x7FFFFFFF), ~rising)
    return bits.astype(np.uint32).view(np.float32)
