"""What retrieval compares: embeddings, whose scores are corrected for hubs.

Some references are near everything. CSLS (Conneau et al., ICLR 2018) takes from a reference's cosine half its
mean cosine to its nearest images in a bank of the query view: a sample of the training images, or all queries
asked. Where the test queries are the training images, both banks hold the test queries: the figures are then
transductive either way, and metrics.json says so (`trained_on_test_images`).
"""

from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.em.adapters import ViewCentred, embed
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.csls import hubness
from cvgl_ray.search.topk import nearest

BANK_ROWS = 2048  # of a view; a larger training set is sampled

Banks = tuple[
    np.ndarray, np.ndarray
]  # training embeddings of the query and the reference view, [n, W] float16


@dataclass(frozen=True)
class Retriever:
    """An adapter with the banks of its training.

    scores: "cosine", or "csls" with so many `neighbours` in a bank; bank: "training" for `banks`, "queries"
    for the very queries that are asked, all of them at once.
    """

    adapter: ViewCentred
    banks: Banks
    scores: str = "csls"
    neighbours: int = 10
    bank: str = "training"

    def sides(
        self, queries: np.ndarray, gallery: np.ndarray, asked: int = QUERY
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of queries [Q, V] and gallery [G, V] whose inner product is the score; V is W or W + 1.

        queries [Q, D], gallery [G, D]: frozen features of any float type; asked: the view of the queries.
        """
        searched = REFERENCE if asked == QUERY else QUERY
        z_query, z_gallery = embed(self.adapter, queries, asked), embed(self.adapter, gallery, searched)
        if self.scores == "csls":
            near = z_query if self.bank == "queries" else self.banks[asked].astype(np.float32)
            hubs = hubness(nearest(z_gallery, near, self.neighbours))
            z_query = np.hstack([z_query, np.ones((len(z_query), 1), np.float32)])
            z_gallery = np.hstack([z_gallery, -hubs[:, None]])
        return torch.from_numpy(z_query), torch.from_numpy(z_gallery)


def bank_samples(queries: int, references: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a training's views the banks are made of: random ones, the same each time, rising."""
    rng = np.random.default_rng(0)
    query, reference = (
        np.sort(rng.choice(count, min(count, BANK_ROWS), replace=False)) for count in (queries, references)
    )
    return query, reference


def banked(query: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a training's frozen features [Nq, D] and [Nr, D] that its banks are made of."""
    of_query, of_reference = bank_samples(len(query), len(reference))
    return query[of_query], reference[of_reference]


def training_banks(adapter: ViewCentred, query: np.ndarray, reference: np.ndarray) -> Banks:
    """Embeddings of frozen features [nq, D] and [nr, D], those that `banked` takes."""
    banks = [embed(adapter, rows, view) for rows, view in ((query, QUERY), (reference, REFERENCE))]
    return banks[0].astype(np.float16), banks[1].astype(np.float16)
