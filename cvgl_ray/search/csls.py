"""CSLS: scores corrected for hubs, the references (and queries) that are near everything.

Conneau et al., ICLR 2018: 2 s(q, r) - r(q) - r(r), r the mean score of a row with its nearest of the other
view. Here it is halved: s - h(q) - h(r), h half that mean, a row's hubness.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Found, Hubness, Search


def hubness(near: Nearest) -> np.ndarray:
    """Half the mean score of each row's nearest: [n] float32, 0 where an approximate index finds none."""
    found = near.ids >= 0
    mean = np.where(found, near.scores, 0.0).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return mean.astype(np.float32) / 2


@dataclass(frozen=True)
class Csls:
    """A search of two views whose scores are corrected for hubs, by so many `neighbours` of each row."""

    search: Search
    neighbours: int

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; the rows' hubness takes a search of its own, which `hubs` spares."""
        if hubs is None:
            of_query, of_reference = self.search.nearest(self.neighbours, self.neighbours)
            hubs = hubness(of_query.near), hubness(of_reference.near)
        return self.search.nearest(k_query, k_reference, hubs)


def csls(similarity: torch.Tensor, neighbours: int) -> torch.Tensor:
    """The corrected scores of a whole matrix of scores [n, m]."""
    rows, columns = (
        similarity.topk(min(neighbours, similarity.shape[dim]), dim=dim).values.mean(dim=dim, keepdim=True)
        for dim in (1, 0)
    )
    return similarity - rows / 2 - columns / 2
