"""Embeddings of both views -> pseudo-labels (the E-step).

Every score used here is the cosine minus one term a row (a hubness correction): s(q, r) - h_q - h_r. The best
reference of a query therefore does not depend on h_q, and -h_r becomes one more coordinate of the reference,
so that exact and approximate inner-product indices serve all scores alike.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from cvgl_ray.em.index import build_index, search


@dataclass(frozen=True)
class PseudoLabels:
    """Who belongs to whom, over the rows that an E-step saw.

    query_rows [nq], reference_rows [nr]: global row ids, int64.
    of_query [nq], of_reference [nr]: position of the partner in the other array, -1 for none.
    best_of_query [nq], best_of_reference [nr]: position of each row's best of the other view, kept or not; -1
    where an approximate index found none.
    cosine [nq]: of each query with its best reference, -1 where there is none; margin [nq]: the lead of that
    pair's score over the query's second best (0 where there is only one).
    """

    query_rows: np.ndarray
    reference_rows: np.ndarray
    of_query: np.ndarray
    of_reference: np.ndarray
    best_of_query: np.ndarray
    best_of_reference: np.ndarray
    cosine: np.ndarray
    margin: np.ndarray

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


def csls_hubness(rows: np.ndarray, others: np.ndarray, neighbours: int, factory: str = "Flat") -> np.ndarray:
    """Half the mean cosine of each row [n, D] to its nearest `neighbours` of the other view: [n] float32.

    Conneau et al., ICLR 2018: CSLS(q, r) = 2 s(q, r) - r(q) - r(r); here halved, hence the half.
    The mean is over those that an approximate index finds, and 0 where it finds none.
    """
    scores, ids = search(build_index(others, factory), rows, neighbours)
    found = ids >= 0
    mean = np.where(found, scores, 0.0).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return mean.astype(np.float32) / 2


def best_two(
    rows: np.ndarray, others: np.ndarray, others_hubness: np.ndarray | None, factory: str = "Flat"
) -> tuple[np.ndarray, np.ndarray]:
    """For each row [n, D] the best of `others` by s - h: (position [n] int64, lead over the second [n]).

    Where an approximate index finds no row, the position is -1; where it finds no second, the lead is 0.
    """
    if others_hubness is not None:
        rows = np.hstack([rows, np.ones((len(rows), 1), dtype=np.float32)])
        others = np.hstack([others, -others_hubness[:, None]])
    scores, ids = search(build_index(others, factory), rows, 2)
    lead = np.zeros(len(rows), dtype=np.float32)
    np.subtract(scores[:, 0], scores[:, -1], out=lead, where=ids[:, -1] >= 0)
    return ids[:, 0], lead


def pseudo_labels(
    query: np.ndarray,
    reference: np.ndarray,
    *,
    query_rows: np.ndarray | None = None,
    reference_rows: np.ndarray | None = None,
    scores: str = "csls",
    neighbours: int = 10,
    match: str = "mutual",
    threshold: float = -1.0,
    factory: str = "Flat",
) -> PseudoLabels:
    """Pseudo-labels of L2-normalised embeddings [nq, D] and [nr, D] float32.

    scores: "cosine" or "csls"; match: "argmax" labels each row of each view with its best of the other view,
    "mutual" keeps pairs that are each other's best. A pair's cosine must exceed `threshold`.
    """
    hub_q = hub_r = None
    if scores == "csls":
        hub_q = csls_hubness(query, reference, neighbours, factory)
        hub_r = csls_hubness(reference, query, neighbours, factory)
    best_q, margin = best_two(query, reference, hub_r, factory)
    best_r, _ = best_two(reference, query, hub_q, factory)
    cosine_q = np.where(best_q >= 0, np.einsum("nd,nd->n", query, reference[best_q]), np.float32(-1))
    cosine_r = np.where(best_r >= 0, np.einsum("nd,nd->n", reference, query[best_r]), np.float32(-1))
    keep_q, keep_r = cosine_q > threshold, cosine_r > threshold
    if match == "mutual":
        keep_q, keep_r = keep_q & is_mutual(best_q, best_r), keep_r & is_mutual(best_r, best_q)
    return PseudoLabels(
        query_rows=np.arange(len(query)) if query_rows is None else query_rows,
        reference_rows=np.arange(len(reference)) if reference_rows is None else reference_rows,
        of_query=np.where(keep_q, best_q, -1),
        of_reference=np.where(keep_r, best_r, -1),
        best_of_query=best_q,
        best_of_reference=best_r,
        cosine=cosine_q,
        margin=margin,
    )


def is_mutual(forth: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether going `forth` [n] and then `back` [m] returns to where it began: [n] bool."""
    return (forth >= 0) & (back[forth] == np.arange(len(forth)))
