"""Embeddings of both views -> pseudo-labels (the E-step)."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from cvgl_ray.em.graphs import Graphs
from cvgl_ray.em.neighbourhood import Neighbourly
from cvgl_ray.search.csls import Csls
from cvgl_ray.search.views import Search, local

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
    """Pseudo-labels of L2-normalised embeddings [nq, D] and [nr, D] float32 that are all at hand.

    scores: "cosine", or "csls" by so many `neighbours`; factory: see `search.views.local`; neighbourhood,
    graphs: weight of the neighbours' matches within each view's graph (see `Neighbourly`). The rest: `label`.
    """
    search = scored(
        local(query, reference, factory),
        scores=scores,
        neighbours=neighbours,
        neighbourhood=neighbourhood,
        graphs=graphs,
    )
    query_rows = np.arange(len(query)) if query_rows is None else query_rows
    reference_rows = np.arange(len(reference)) if reference_rows is None else reference_rows
    return label(search, query_rows, reference_rows, match=match, threshold=threshold, share=share)


def scored(
    search: Search, *, scores: str, neighbours: int, neighbourhood: float, graphs: Graphs | None
) -> Search:
    """A search by the configured scores, of a search by cosines; see `pseudo_labels`."""
    if neighbourhood and graphs is not None:
        return Neighbourly(search, graphs, neighbourhood, scores, neighbours)
    return Csls(search, neighbours) if scores == "csls" else search


def label(
    search: Search,
    query_rows: np.ndarray,
    reference_rows: np.ndarray,
    *,
    match: str = "mutual",
    threshold: float = -1.0,
    share: float = 1.0,
) -> PseudoLabels:
    """Pseudo-labels of the rows [nq] and [nr] (global ids) whose embeddings a search holds.

    match: "argmax" labels each row of each view with its best of the other view; "mutual" keeps a pair that
    is each other's best, where a reference has room for round(nq / nr) best queries (several images show its
    place) and a query for round(nr / nq) references. A pair's cosine must exceed `threshold`.
    share: of the queries that then have a reference, those of the widest margin keep it, in (0, 1]; a
    reference keeps a query that keeps it.
    """
    nq, nr = len(query_rows), len(reference_rows)
    room_q, room_r = rooms(nq, nr)
    of_query, of_reference = search.nearest(max(EXAMPLE_DEPTH, room_q), room_r)
    best_q, best_r = of_query.near.best(), of_reference.near.best()
    keep_q, keep_r = of_query.cosine > threshold, of_reference.cosine > threshold
    if match == "mutual":
        keep_q &= accepted(best_q, of_reference.near.ids[:, :room_r])
        keep_r &= accepted(best_r, of_query.near.ids[:, :room_q])
    margin = of_query.near.lead()
    if share < 1:
        keep_q &= widest(margin, keep_q, share)
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
        examples=examples_of(of_query.near.ids, query_rows, reference_rows),
    )


def rooms(queries: int, references: int) -> tuple[int, int]:
    """How many references a query may have, and how many queries a reference: several show its place."""
    return max(1, round(references / queries)), max(1, round(queries / references))


def examples_of(ids: np.ndarray, query_rows: np.ndarray, reference_rows: np.ndarray) -> np.ndarray:
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


def widest(margin: np.ndarray, among: np.ndarray, share: float) -> np.ndarray:
    """Which rows have one of the widest margins [n] of those `among` [n] bool: [n] bool."""
    if not among.any():
        return among
    return margin >= np.quantile(margin[among], 1 - share)


def label_free_scores(
    labels: PseudoLabels, previous: PseudoLabels | None = None, *, queries: int = 0
) -> dict[str, float]:
    """Scores of an E-step over all rows, each in [0, 1] but the margin.

    queries: of the whole view, where the E-step has asked a sample of them; shares are then estimates.

    mutual: share of the rows of the smaller view whose best partner's best partner they are;
    cycle: share of queries that come back to themselves over their best reference;
    coverage: share of references that are some query's best (low: hubs); margin: mean lead of the best
    reference; labelled: share of queries with a pseudo-label; churn: share of queries whose best reference
    differs from the previous round's (only where that round saw the same rows).
    """
    best = labels.best_of_query
    cycle = is_mutual(labels.best_of_query, labels.best_of_reference)
    queries = queries or len(best)
    smaller = min(queries, len(labels.reference_rows))
    scores = {
        "mutual": min(1.0, float(cycle.sum() / len(best) * queries / smaller)),
        "cycle": float(cycle.mean()),
        "coverage": len(np.unique(best[best >= 0])) / len(labels.reference_rows),
        "margin": float(labels.margin.mean()),
        "labelled": float((labels.of_query >= 0).mean()),
    }
    if previous is not None and _same_rows(previous, labels):
        scores["churn"] = float((previous.best_of_query != best).mean())
    return scores


def _same_rows(one: PseudoLabels, other: PseudoLabels) -> bool:
    return np.array_equal(one.query_rows, other.query_rows) and np.array_equal(
        one.reference_rows, other.reference_rows
    )
