"""Who is nearest to whom between two views of embeddings, by cosine or CSLS.

Every score used here is the cosine minus one term a row (a hubness correction): s(q, r) - h_q - h_r. The best
reference of a query therefore does not depend on h_q, and -h_r becomes one more coordinate of the reference,
so that exact and approximate inner-product indices serve all scores alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cvgl_ray.search.approximate import build_index, search
from cvgl_ray.search.exact import Nearest, merge, search_both

CHUNK = 16_384  # rows


@dataclass(frozen=True)
class Found:
    """For each row of a view its nearest of the other view, and the cosine of its best [n] (-1: none)."""

    near: Nearest
    cosine: np.ndarray


Hubness = tuple[np.ndarray, np.ndarray]  # of the queries [nq] and of the references [nr], float32
# From k of a query, k of a reference and a hubness to what is found for the queries and for the references.
Search = Callable[[int, int, Hubness | None], tuple[Found, Found]]


def nearest_both(
    search: Search, k_query: int, k_reference: int, *, scores: str = "csls", neighbours: int = 5
) -> tuple[Found, Found]:
    """The best references of each query and the best queries of each reference, by "cosine" or "csls".

    CSLS (Conneau et al., ICLR 2018) is 2 s(q, r) - r(q) - r(r), r the mean over a row's nearest `neighbours`
    of the other view; here halved. It takes a search of its own for those means.
    """
    hubness = None
    if scores == "csls":
        of_query, of_reference = search(neighbours, neighbours, None)
        hubness = half_mean(of_query.near), half_mean(of_reference.near)
    return search(k_query, k_reference, hubness)


def one_index(query: np.ndarray, reference: np.ndarray, factory: str = "Flat") -> Search:
    """The search of L2-normalised rows [nq, D] and [nr, D] float32 that are all at hand.

    "Flat" is exact, a blocked matrix product; any other factory builds faiss indices.
    """

    def exact(k_query: int, k_reference: int, hubness: Hubness | None) -> tuple[Found, Found]:
        return found_both(query, reference, k_query, k_reference, hubness)

    def indexed(k_query: int, k_reference: int, hubness: Hubness | None) -> tuple[Found, Found]:
        hub_q, hub_r = hubness or (None, None)
        return (
            found_by_index([query], reference, hub_r, k_query, factory),
            found_by_index([reference], query, hub_q, k_reference, factory),
        )

    return exact if factory == "Flat" else indexed


def found_both(
    query: np.ndarray, reference: np.ndarray, k_query: int, k_reference: int, hubness: Hubness | None
) -> tuple[Found, Found]:
    """The exact answer for both views by one pass over their scores."""
    of_query, of_reference = search_both(query, reference, k_query, k_reference, hubness)
    return (
        Found(of_query, cosines(query, reference, of_query.best())),
        Found(of_reference, cosines(reference, query, of_reference.best())),
    )


def found_by_index(
    blocks: Iterable[np.ndarray], others: np.ndarray, hubness: np.ndarray | None, k: int, factory: str
) -> Found:
    """For each row of the blocks [n, D] the k best of `others` [m, D] by s - h, h [m] their hubness.

    The scores lack the term of the row that asks, which orders nothing.
    """
    searched = others if hubness is None else np.hstack([others, -hubness[:, None]])
    index = build_index(searched, factory)
    found = []
    for rows in blocks:
        asked = rows if hubness is None else np.hstack([rows, np.ones((len(rows), 1), dtype=np.float32)])
        scores, ids = search(index, asked, k)
        found.append(Found(Nearest(ids, scores), cosines(rows, others, ids[:, 0])))
    return stack(found)


def stack(parts: Sequence[Found]) -> Found:
    """What was found for the rows of several parts of a view, one after the other."""
    near = Nearest(*(np.concatenate([getattr(p.near, name) for p in parts]) for name in ("ids", "scores")))
    return Found(near, np.concatenate([part.cosine for part in parts]))


def merge_found(shards: Sequence[Found], first_ids: Sequence[int], k: int) -> Found:
    """What was found for the same rows in several shards of the other view; see `exact.merge`."""
    near = merge([shard.near for shard in shards], first_ids, k)
    owner = np.searchsorted(first_ids, np.maximum(near.best(), 0), side="right") - 1
    cosine = np.stack([shard.cosine for shard in shards])[owner, np.arange(len(owner))]
    return Found(near, np.where(near.best() >= 0, cosine, np.float32(-1)))


def half_mean(near: Nearest) -> np.ndarray:
    """Half the mean score of each row's nearest: [n] float32, 0 where an approximate index finds none."""
    found = near.ids >= 0
    mean = np.where(found, near.scores, 0.0).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return mean.astype(np.float32) / 2


def cosines(rows: np.ndarray, others: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Cosine of each row with its best of the other view, -1 where it has none: [n] float32."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):  # others[best] is a copy
        part = slice(start, start + CHUNK)
        np.einsum("nd,nd->n", rows[part], others[best[part]], out=found[part])
    return np.where(best >= 0, found, np.float32(-1))
