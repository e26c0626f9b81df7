"""Embeddings of both views -> pseudo-labels (the E-step).

Every score used here is the cosine minus one term a row (a hubness correction): s(q, r) - h_q - h_r. The best
reference of a query therefore does not depend on h_q, and -h_r becomes one more coordinate of the reference,
so that exact and approximate inner-product indices serve all scores alike.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from cvgl_ray.em.exact import Nearest, search_both
from cvgl_ray.em.index import build_index, search
from cvgl_ray.em.neighbourhood import Graphs, check_size, csls, neighbourhood_scores

CHUNK = 16_384  # rows
EXAMPLES, EXAMPLE_DEPTH = 6, 5  # queries of a round that a person is shown, and how many references of each


@dataclass(frozen=True)
class PseudoLabels:
    """Who belongs to whom, over the rows that an E-step saw.

    query_rows [nq], reference_rows [nr]: global row ids, int64.
    of_query [nq], of_reference [nr]: position of the partner in the other array, -1 for none.
    best_of_query [nq], best_of_reference [nr]: position of each row's best of the other view, kept or not; -1
    where an approximate index found none.
    cosine [nq]: of each query with its best reference, -1 where there is none; margin [nq]: the lead of that
    pair's score over the query's second best (0 where there is only one).
    examples [n, 1 + k]: global row ids of a few evenly spaced queries, each followed by its best references,
    best first, -1 where an approximate index found fewer.
    """

    query_rows: np.ndarray
    reference_rows: np.ndarray
    of_query: np.ndarray
    of_reference: np.ndarray
    best_of_query: np.ndarray
    best_of_reference: np.ndarray
    cosine: np.ndarray
    margin: np.ndarray
    examples: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Global row ids (queries, references) of the kept pairs."""
        kept = self.of_query >= 0
        return self.query_rows[kept], self.reference_rows[self.of_query[kept]]

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint that loads without executing anything."""
        return {field.name: torch.tensor(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> "PseudoLabels":
        return cls(**{name: value.numpy() for name, value in tensors.items()})


def nearest_both(
    query: np.ndarray,
    reference: np.ndarray,
    k_query: int,
    k_reference: int,
    *,
    scores: str = "csls",
    neighbours: int = 5,
    factory: str = "Flat",
) -> tuple[Nearest, Nearest]:
    """The best references of each query and the best queries of each reference, by cosine or CSLS.

    CSLS (Conneau et al., ICLR 2018) is 2 s(q, r) - r(q) - r(r), r the mean over a row's nearest `neighbours`
    of the other view; here halved. "Flat" is exact, two blocked matrix products; any other factory builds
    faiss indices, whose order leaves out the term of the row that asks.
    """
    if factory != "Flat":
        hub_q = hub_r = None
        if scores == "csls":
            hub_q = csls_hubness(query, reference, neighbours, factory)
            hub_r = csls_hubness(reference, query, neighbours, factory)
        of_query = nearest(query, reference, hub_r, k_query, factory)
        return of_query, nearest(reference, query, hub_q, k_reference, factory)
    hubness = None
    if scores == "csls":
        sides = search_both(query, reference, neighbours, neighbours)
        hubness = _half_mean(sides[0]), _half_mean(sides[1])
    return search_both(query, reference, k_query, k_reference, hubness)


def csls_hubness(rows: np.ndarray, others: np.ndarray, neighbours: int, factory: str) -> np.ndarray:
    """Half the mean cosine of each row [n, D] to its nearest `neighbours` of the other view: [n] float32.

    The mean is over those that an approximate index finds, and 0 where it finds none.
    """
    scores, ids = search(build_index(others, factory), rows, neighbours)
    return _half_mean(Nearest(ids, scores))


def nearest(
    rows: np.ndarray, others: np.ndarray, others_hubness: np.ndarray | None, k: int, factory: str
) -> Nearest:
    """For each row [n, D] the k best of `others` [m, D] by s - h, h [m] their hubness."""
    if others_hubness is not None:
        rows = np.hstack([rows, np.ones((len(rows), 1), dtype=np.float32)])
        others = np.hstack([others, -others_hubness[:, None]])
    scores, ids = search(build_index(others, factory), rows, k)
    return Nearest(ids, scores)


def pseudo_labels(
    query: np.ndarray,
    reference: np.ndarray,
    *,
    query_rows: np.ndarray | None = None,
    reference_rows: np.ndarray | None = None,
    scores: str = "csls",
    neighbours: int = 5,
    match: str = "mutual",
    threshold: float = -1.0,
    share: float = 1.0,
    factory: str = "Flat",
    neighbourhood: float = 0.0,
    graphs: Graphs | None = None,
) -> PseudoLabels:
    """Pseudo-labels of L2-normalised embeddings [nq, D] and [nr, D] float32.

    scores: "cosine" or "csls". neighbourhood, graphs: weight of the neighbours' matches within each view's
    graph (see neighbourhood.neighbourhood_scores).
    match: "argmax" labels each row of each view with its best of the other view; "mutual" keeps a pair that
    is each other's best, where a reference has room for round(nq / nr) best queries (several images show its
    place) and a query for round(nr / nq) references. A pair's cosine must exceed `threshold`.
    share: of the queries that then have a reference, those of the widest margin keep it, in (0, 1]; a
    reference keeps a query that keeps it.
    """
    nq, nr = len(query), len(reference)
    room_q, room_r = (max(1, round(x / y)) for x, y in ((nr, nq), (nq, nr)))
    if neighbourhood and graphs is not None:
        matrix = score_matrix(query, reference, scores, neighbours, neighbourhood, graphs)
        sides = (matrix, max(EXAMPLE_DEPTH, room_q)), (matrix.T, room_r)
        near_q, near_r = (_nearest_in(side, k) for side, k in sides)
    else:
        k = max(EXAMPLE_DEPTH, room_q), room_r
        near_q, near_r = nearest_both(
            query, reference, *k, scores=scores, neighbours=neighbours, factory=factory
        )
    best_q, best_r = near_q.ids[:, 0], near_r.ids[:, 0]
    cosine_q, cosine_r = _cosines(query, reference, best_q), _cosines(reference, query, best_r)
    keep_q, keep_r = cosine_q > threshold, cosine_r > threshold
    if match == "mutual":
        keep_q &= accepted(best_q, near_r.ids[:, :room_r])
        keep_r &= accepted(best_r, near_q.ids[:, :room_q])
    margin = near_q.lead()
    if share < 1:
        keep_q &= _widest(margin, keep_q, share)
        keep_r &= keep_q[best_r] & (best_q[best_r] == np.arange(len(reference)))
    query_rows = np.arange(len(query)) if query_rows is None else query_rows
    reference_rows = np.arange(len(reference)) if reference_rows is None else reference_rows
    return PseudoLabels(
        query_rows=query_rows,
        reference_rows=reference_rows,
        of_query=np.where(keep_q, best_q, -1),
        of_reference=np.where(keep_r, best_r, -1),
        best_of_query=best_q,
        best_of_reference=best_r,
        cosine=cosine_q,
        margin=margin,
        examples=_examples(near_q.ids, query_rows, reference_rows),
    )


def score_matrix(
    query: np.ndarray, reference: np.ndarray, scores: str, neighbours: int, weight: float, graphs: Graphs
) -> torch.Tensor:
    """All scores [nq, nr] with the neighbourhoods' share; raises InputError where they are too many."""
    check_size(len(query), len(reference))
    matrix = torch.from_numpy(query) @ torch.from_numpy(reference).T
    return neighbourhood_scores(csls(matrix, neighbours) if scores == "csls" else matrix, graphs, weight)


def _examples(ids: np.ndarray, query_rows: np.ndarray, reference_rows: np.ndarray) -> np.ndarray:
    """PseudoLabels.examples from the best references' positions [nq, k] of all queries."""
    shown = np.unique(np.linspace(0, len(ids) - 1, EXAMPLES).astype(int))
    best = ids[shown, :EXAMPLE_DEPTH]
    return np.column_stack([query_rows[shown], np.where(best >= 0, reference_rows[best], -1)])


def accepted(best: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether each row is among the rows `back` [m, k] that its best [n] (-1: none) accepts: [n] bool."""
    return (best >= 0) & (back[best] == np.arange(len(best))[:, None]).any(axis=1)


def is_mutual(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether going `forth` [n] and then `back` [m] returns to where it began: [n] bool."""
    return accepted(forth, back[:, None])


def _widest(margin: np.ndarray, among: np.ndarray, share: float) -> np.ndarray:
    """Which rows have one of the widest margins [n] of those `among` [n] bool: [n] bool."""
    if not among.any():
        return among
    return margin >= np.quantile(margin[among], 1 - share)


def _half_mean(near: Nearest) -> np.ndarray:
    found = near.ids >= 0
    mean = np.where(found, near.scores, 0.0).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return mean.astype(np.float32) / 2


def _nearest_in(matrix: torch.Tensor, room: int) -> Nearest:
    top = matrix.topk(min(max(2, room), matrix.shape[1]), dim=1)
    return Nearest(top.indices.numpy(), top.values.numpy())


def _cosines(rows: np.ndarray, others: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Cosine of each row with its best of the other view, -1 where it has none: [n] float32."""
    cosines = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):  # others[best] is a copy
        part = slice(start, start + CHUNK)
        np.einsum("nd,nd->n", rows[part], others[best[part]], out=cosines[part])
    return np.where(best >= 0, cosines, np.float32(-1))
