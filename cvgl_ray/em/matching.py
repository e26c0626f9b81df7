"""Embeddings of both views -> pseudo-labels (the E-step)."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch

from cvgl_ray.em.neighbourhood import Graphs, check_size, csls, neighbourhood_scores
from cvgl_ray.search.exact import Nearest, search_one
from cvgl_ray.search.nearest import Found, cosines, half_mean, nearest_both, one_index

SHORTLIST = 16
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


# From k of a query and k of a reference to what is found for the queries and for the references.
Nearests = Callable[[int, int], tuple[Found, Found]]


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

    scores, neighbours, factory: see nearest.nearest_both and one_index. neighbourhood, graphs: weight of the
    neighbours' matches within each view's graph (see neighbourhood.neighbourhood_scores). The rest: `label`.
    """

    def found(k_query: int, k_reference: int) -> tuple[Found, Found]:
        if neighbourhood and graphs is not None:
            matrix = score_matrix(query, reference, scores, neighbours, neighbourhood, graphs)
            return (
                _found_in(matrix, k_query, query, reference),
                _found_in(matrix.T, k_reference, reference, query),
            )
        index = one_index(query, reference, factory)
        return nearest_both(index, k_query, k_reference, scores=scores, neighbours=neighbours)

    query_rows = np.arange(len(query)) if query_rows is None else query_rows
    reference_rows = np.arange(len(reference)) if reference_rows is None else reference_rows
    return label(found, query_rows, reference_rows, match=match, threshold=threshold, share=share)


def label(
    nearests: Nearests,
    query_rows: np.ndarray,
    reference_rows: np.ndarray,
    *,
    match: str = "mutual",
    threshold: float = -1.0,
    share: float = 1.0,
) -> PseudoLabels:
    """Pseudo-labels of the rows [nq] and [nr] (global ids), from whoever finds the nearest among them.

    match: "argmax" labels each row of each view with its best of the other view; "mutual" keeps a pair that
    is each other's best, where a reference has room for round(nq / nr) best queries (several images show its
    place) and a query for round(nr / nq) references. A pair's cosine must exceed `threshold`.
    share: of the queries that then have a reference, those of the widest margin keep it, in (0, 1]; a
    reference keeps a query that keeps it.
    """
    nq, nr = len(query_rows), len(reference_rows)
    room_q, room_r = rooms(nq, nr)
    of_query, of_reference = nearests(max(EXAMPLE_DEPTH, room_q), room_r)
    best_q, best_r = of_query.near.best(), of_reference.near.best()
    keep_q, keep_r = of_query.cosine > threshold, of_reference.cosine > threshold
    if match == "mutual":
        keep_q &= accepted(best_q, of_reference.near.ids[:, :room_r])
        keep_r &= accepted(best_r, of_query.near.ids[:, :room_q])
    margin = of_query.near.lead()
    if share < 1:
        keep_q &= _widest(margin, keep_q, share)
        keep_r &= keep_q[best_r] & (best_q[best_r] == np.arange(nr))
    return PseudoLabels(
        query_rows=query_rows,
        reference_rows=reference_rows,
        of_query=np.where(keep_q, best_q, -1),
        of_reference=np.where(keep_r, best_r, -1),
        best_of_query=best_q,
        best_of_reference=best_r,
        cosine=of_query.cosine,
        margin=margin,
        examples=_examples(of_query.near.ids, query_rows, reference_rows),
    )


def labels_of_asked(
    query: np.ndarray,
    reference: np.ndarray,
    asked: np.ndarray,
    *,
    scores: str = "csls",
    neighbours: int = 5,
    match: str = "mutual",
    threshold: float = -1.0,
    share: float = 1.0,
) -> PseudoLabels:
    """What `pseudo_labels` of all rows [nq, D] and [nr, D] says of the queries asked, row ids [a].

    Candidates are all rows of both views, so the answer does not depend on how many are asked; their
    number only sets its cost, which grows with nq and nr and not with their product. By CSLS the best is
    looked for among a row's SHORTLIST best by cosine. A reference whose best query is not asked has none.
    """
    nq, nr = len(query), len(reference)
    room_q, room_r = rooms(nq, nr)
    near = search_one(query[asked], reference, max(SHORTLIST, room_q))
    back, first = None, np.unique(near.ids if scores == "csls" else near.best())
    if scores == "csls" or match == "mutual":
        back = search_one(reference[first], query, max(SHORTLIST, 2 * room_r))
    if scores == "csls":
        assert back is not None
        near = near.less(_spread(half_mean(back.first(neighbours)), first, nr))
        best = np.unique(near.best())
        back = back.of(np.searchsorted(first, best))
        first = best
        second = np.unique(back.ids)
        hubs = half_mean(search_one(query[second], reference, neighbours))
        back = back.less(_spread(hubs, second, nq))
    best, cosine = near.best(), cosines(query[asked], reference, near.best())
    keep = cosine > threshold
    best_of_reference = np.full(nr, -1)
    if back is not None:
        place = np.searchsorted(first, best)
        if match == "mutual":
            keep &= (back.ids[place, :room_r] == asked[:, None]).any(axis=1)
        position = _spread(np.arange(len(asked)), asked, nq, -1)
        best_of_reference[first] = position[back.best()]
    margin = near.lead()
    if share < 1:
        keep &= _widest(margin, keep, share)
    of_query = np.where(keep, best, -1)
    chosen = best_of_reference  # of those whose best query is asked and keeps them
    kept = (chosen >= 0) & (of_query[chosen] == np.arange(nr))
    return PseudoLabels(
        query_rows=asked,
        reference_rows=np.arange(nr),
        of_query=of_query,
        of_reference=np.where(kept, chosen, -1),
        best_of_query=best,
        best_of_reference=best_of_reference,
        cosine=cosine,
        margin=margin,
        examples=_examples(near.ids, asked, np.arange(nr)),
    )


def _spread(values: np.ndarray, rows: np.ndarray, count: int, other: float = 0) -> np.ndarray:
    """An array [count] with the values [n] at some rows [n] and `other` elsewhere."""
    spread = np.full(count, other, dtype=values.dtype)
    spread[rows] = values
    return spread


def rooms(queries: int, references: int) -> tuple[int, int]:
    """How many references a query may have, and how many queries a reference: several show its place."""
    return max(1, round(references / queries)), max(1, round(queries / references))


def score_matrix(
    query: np.ndarray, reference: np.ndarray, scores: str, neighbours: int, weight: float, graphs: Graphs
) -> torch.Tensor:
    """All scores [nq, nr] with the neighbourhoods' share; raises InputError where they are too many."""
    check_size(len(query), len(reference))
    matrix = torch.from_numpy(query) @ torch.from_numpy(reference).T
    return neighbourhood_scores(csls(matrix, neighbours) if scores == "csls" else matrix, graphs, weight)


def _found_in(matrix: torch.Tensor, k: int, rows: np.ndarray, others: np.ndarray) -> Found:
    top = matrix.topk(min(max(2, k), matrix.shape[1]), dim=1)
    near = Nearest(top.indices.numpy(), top.values.numpy())
    return Found(near, cosines(rows, others, near.best()))


def _examples(ids: np.ndarray, query_rows: np.ndarray, reference_rows: np.ndarray) -> np.ndarray:
    """PseudoLabels.examples from the best references' positions [nq, k] of all queries."""
    shown = np.unique(np.linspace(0, len(ids) - 1, EXAMPLES).astype(int))
    best = ids[shown, :EXAMPLE_DEPTH]
    return np.column_stack([query_rows[shown], np.where(best >= 0, reference_rows[best], -1)])


def accepted(best: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether each row is among the rows `back` [m, k] that its best [n] (-1: none) accepts: [n] bool."""
    rows, found = np.arange(len(best)), np.zeros(len(best), dtype=bool)
    for column in back.T:  # back[best] would be k times as large
        found |= column[best] == rows
    return (best >= 0) & found


def is_mutual(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether going `forth` [n] and then `back` [m] returns to where it began: [n] bool."""
    return accepted(forth, back[:, None])


def _widest(margin: np.ndarray, among: np.ndarray, share: float) -> np.ndarray:
    """Which rows have one of the widest margins [n] of those `among` [n] bool: [n] bool."""
    if not among.any():
        return among
    return margin >= np.quantile(margin[among], 1 - share)
