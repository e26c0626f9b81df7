"""The E-step of vectors and cells together, as the matcher that `em.rounds.run_rounds` takes."""

from dataclasses import dataclass

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.combine import combined
from cvgl_ray.config import EStep
from cvgl_ray.em.graphs import Graphs
from cvgl_ray.em.matching import PseudoLabels, label
from cvgl_ray.em.neighbourhood import Neighbourly
from cvgl_ray.em.rounds import EStepRows, Matcher
from cvgl_ray.search.views import Found, Hubness, Matrix, Search, cosines


def alignment_matcher(aligner: Aligner, estep: EStep, graphs: Graphs | None = None) -> Matcher:
    """A matcher of one process that holds all rows (estep.rows = 0), and the cells of all in the aligner.

    Each call is one round of the cells, too: it scores the pairs, labels them by vector and alignment
    together, and lets the aligner learn from the pairs that are labelled.
    """

    def match(_round: int, rows: EStepRows) -> PseudoLabels:
        vectors = torch.from_numpy(rows.query) @ torch.from_numpy(rows.reference).T
        scores = together(aligner, vectors, estep.neighbours)
        search: Search = Matrix(scores, rows.query, rows.reference)
        if estep.neighbourhood and graphs is not None:
            whole = Neighbourly(search, graphs, estep.neighbourhood, "cosine", estep.neighbours)
            search = _WithCosines(whole, rows.query, rows.reference)
        labels = label(
            search,
            rows.query_rows,
            rows.reference_rows,
            match=estep.match,
            threshold=estep.threshold,
            share=rows.share,
        )
        aligner.learn(*labels.pairs())
        return labels

    return match


@dataclass(frozen=True)
class _WithCosines:
    """A search by other scores, whose answers tell the cosines of rows [nq, D] and [nr, D] all the same."""

    search: Search
    query: np.ndarray
    reference: np.ndarray

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search."""
        of_query, of_reference = (found.near for found in self.search.nearest(k_query, k_reference, hubs))
        return (
            Found(of_query, cosines(self.query, self.reference, of_query.best())),
            Found(of_reference, cosines(self.reference, self.query, of_reference.best())),
        )


def together(aligner: Aligner, vectors: torch.Tensor, neighbours: int, *, keep: bool = False) -> torch.Tensor:
    """Scores [Nq, Nr] of vectors (cosines) and cells together.

    keep: the weights that the aligner knows, from its training; else they are found anew, and it knows them.
    Few pairs are all searched by coarse cells; of many the vectors propose those that are aligned.
    """
    settings, proposed = aligner.settings, None
    if vectors.numel() > settings.all_below:
        proposed = vectors.topk(min(settings.candidates, vectors.shape[1]), dim=1).indices.numpy()
    known = aligner.combination if keep else None
    total, aligner.combination = combined([aligner.align(proposed), vectors], neighbours, known)
    return total
