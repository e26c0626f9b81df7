"""The exact top-k: the best rows of one array for those of another, by faiss or on a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.search.gpu import best_on


@dataclass(frozen=True)
class Nearest:
    """The best rows of the other view for each row [n], best first: ids [n, k] int64, scores [n, k].

    An approximate index that finds fewer fills up with id -1 and score -inf.
    """

    ids: np.ndarray
    scores: np.ndarray

    @classmethod
    def nothing(cls, rows: int) -> "Nearest":
        """Of so many rows for which nothing was looked for: k is 0."""
        return cls(np.empty((rows, 0), np.int64), np.empty((rows, 0), np.float32))

    def best(self) -> np.ndarray:
        """Each row's best, [n] int64; -1 where there is none."""
        best: np.ndarray = self.ids[:, 0] if self.ids.shape[1] else np.full(len(self.ids), -1)
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
    device: str = "cpu",
) -> tuple[Nearest, Nearest]:
    """The k_query best references of each query, and the k_reference best queries of each reference.

    query [nq, D], reference [nr, D] float32, scored by s = inner product or, given hubness (h_q [nq],
    h_r [nr] float32), by s - h_q - h_r. Either k is cut to the size of the other view, and may be 0.
    """
    hub_q, hub_r = hubness or (None, None)
    return (
        _with_own(nearest(query, reference, k_query, hub_r, device=device), hub_q),
        _with_own(nearest(reference, query, k_reference, hub_q, device=device), hub_r),
    )


def nearest(
    rows: np.ndarray, others: np.ndarray, k: int, hubness: np.ndarray | None = None, *, device: str = "cpu"
) -> Nearest:
    """The k best of `others` [m, D] for each of `rows` [n, D], float32, by s or s - h, hubness h [m].

    k is cut to m. Needs memory for the answer and a block of scores, and where there is hubness for a copy of
    both sides.
    """
    k = min(k, len(others))
    if not k:
        return Nearest.nothing(len(rows))
    if device != "cpu":
        term = None if hubness is None else _tensor(hubness)
        best = best_on(device, _tensor(rows), _tensor(others), k, term)
        return Nearest(best[1].numpy(), best[0].numpy())
    if hubness is not None:  # one more coordinate
        rows = np.hstack([rows, np.ones((len(rows), 1), np.float32)])
        others = np.hstack([others, -hubness[:, None]])
    scores, ids = faiss.knn(rows, others, k, faiss.METRIC_INNER_PRODUCT)
    return Nearest(ids, np.where(ids < 0, np.float32(-np.inf), scores))  # such as of NaN


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements="W"))  # torch warns of an object store's memory


def _with_own(near: Nearest, hubness: np.ndarray | None) -> Nearest:
    """The scores less the hubness [n] of the rows that ask."""
    return near if hubness is None else Nearest(near.ids, near.scores - hubness[:, None])
