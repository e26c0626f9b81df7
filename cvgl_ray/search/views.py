"""A search of two views in each other: what it answers, and where all rows are at hand.

Every score is the cosine minus one term per row (its hubness): s(q, r) - h_q - h_r. The best reference of a
query does not depend on h_q, and -h_r becomes one more coordinate of the reference, so that exact and
approximate inner-product indices serve all scores alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cvgl_ray.search.approximate import build_index, chosen, projection, scored_again, search
from cvgl_ray.search.topk import Nearest, merge, nearest, nearest_both

CHUNK = 16_384  # rows
SPARE = 2  # candidates of wide rows per one that is wanted

Hubness = tuple[np.ndarray, np.ndarray]  # of the queries [nq] and of the references [nr], float32


@dataclass(frozen=True)
class Found:
    """For each row of a view its nearest of the other view, and the cosine of its best [n] (-1: none)."""

    near: Nearest
    cosine: np.ndarray


class Search(Protocol):
    """Two views' rows, wherever they lie."""

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """The k_query best references of each query, and the k_reference best queries of each reference.

        hubs: their hubness, which is taken from the scores. Either k is cut to the other view's size.
        """


@dataclass(frozen=True)
class Exact:
    """The exact search of L2-normalised rows [nq, D] and [nr, D] float32 that are all at hand."""

    query: np.ndarray
    reference: np.ndarray
    device: str = "cpu"

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; of references for which k is 0 nothing is looked for."""
        of_query, of_reference = nearest_both(
            self.query, self.reference, k_query, k_reference, hubs, device=self.device
        )
        return (
            Found(of_query, cosines(self.query, self.reference, of_query.best())),
            Found(of_reference, cosines(self.reference, self.query, of_reference.best())),
        )


@dataclass(frozen=True)
class Matrix:
    """A search whose scores [nq, nr] are at hand; its rows [nq, D] and [nr, D] float32 give the cosines."""

    scores: torch.Tensor
    query: np.ndarray
    reference: np.ndarray

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; hubs are the scores' own affair here. Both k are at least 2."""
        found = []
        sides = ((self.scores, self.query, self.reference), (self.scores.T, self.reference, self.query))
        for (scores, rows, others), k in zip(sides, (k_query, k_reference), strict=True):
            top = scores.topk(min(max(2, k), scores.shape[1]), dim=1)
            near = Nearest(top.indices.numpy(), top.values.numpy())
            found.append(Found(near, cosines(rows, others, near.best())))
        return found[0], found[1]


@dataclass(frozen=True)
class Indexed:
    """The same by faiss indices of the two views; factory: see `build_index`."""

    query: np.ndarray
    reference: np.ndarray
    factory: str

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; the scores lack the term of the row that asks, which orders nothing."""
        hub_q, hub_r = hubs or (None, None)
        return (
            found_by_index([self.query], self.reference, hub_r, k_query, self.factory),
            found_by_index([self.reference], self.query, hub_q, k_reference, self.factory),
        )


def local(query: np.ndarray, reference: np.ndarray, factory: str = "Flat", device: str = "cpu") -> Search:
    """The search of rows that are all at hand: "Flat" is exact, any other factory builds faiss indices.

    "auto": see approximate.chosen; a GPU looks at all pairs.
    """
    factory = chosen(factory, len(query), len(reference), query.shape[1], device)
    return Exact(query, reference, device) if factory == "Flat" else Indexed(query, reference, factory)


def within(rows: np.ndarray, k: int, factory: str = "Flat", device: str = "cpu") -> Nearest:
    """The k best of a view's rows [n, D] float32 for each of them, itself among them; factory: see local."""
    return among(rows, rows, k, factory, device)


def among(
    rows: np.ndarray, others: np.ndarray, k: int, factory: str = "auto", device: str = "cpu"
) -> Nearest:
    """The k best of others [m, D] float32 for each of the rows [n, D]; factory: see local."""
    factory = chosen(factory, len(rows), len(others), others.shape[1], device)
    if factory == "Flat":
        return nearest(rows, others, k, device=device)
    return found_by_index([rows], others, None, k, factory).near


def found_by_index(
    blocks: Iterable[np.ndarray], others: np.ndarray, hubness: np.ndarray | None, k: int, factory: str
) -> Found:
    """For each row of the blocks [n, D] the k best of `others` [m, D] by s - h, h [m] their hubness.

    The scores lack the term of the row that asks, which orders nothing. Wide rows are looked for by a few
    numbers each (`projection`); twice as many as are wanted are then scored by the whole rows.
    """
    narrow = projection(others)
    searched = others if narrow is None else others @ narrow
    searched = searched if hubness is None else np.hstack([searched, -hubness[:, None]])
    index = build_index(searched, factory)
    del searched  # the index has a copy
    found = []
    for rows in blocks:
        asked = rows if narrow is None else rows @ narrow
        asked = asked if hubness is None else np.hstack([asked, np.ones((len(rows), 1), dtype=np.float32)])
        scores, ids = search(index, asked, k if narrow is None else SPARE * k)
        near = Nearest(ids, scores)
        if narrow is not None:
            near = Nearest(ids, scored_again(rows, others, ids))
            near = near.less(np.zeros(len(others), np.float32) if hubness is None else hubness).first(k)
        found.append(Found(near, cosines(rows, others, near.best())))
    return stack(found)


def stack(parts: Sequence[Found]) -> Found:
    """What was found for the rows of several parts of a view, one after the other."""
    near = Nearest(*(np.concatenate([getattr(p.near, name) for p in parts]) for name in ("ids", "scores")))
    return Found(near, np.concatenate([part.cosine for part in parts]))


def merge_found(shards: Sequence[Found], first_ids: Sequence[int], k: int) -> Found:
    """What was found for the same rows in several shards of the other view; see `topk.merge`."""
    near = merge([shard.near for shard in shards], first_ids, k)
    owner = np.searchsorted(first_ids, np.maximum(near.best(), 0), side="right") - 1
    cosine = np.stack([shard.cosine for shard in shards])[owner, np.arange(len(owner))]
    return Found(near, np.where(near.best() >= 0, cosine, np.float32(-1)))


def cosines(rows: np.ndarray, others: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Cosine of each row with its best of the other view, -1 where it has none: [n] float32."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):  # others[best] is a copy
        part = slice(start, start + CHUNK)
        np.einsum("nd,nd->n", rows[part], others[best[part]], out=found[part])
    return np.where(best >= 0, found, np.float32(-1))
