"""The E-step of vectors and cells together, as the matcher that `em.loop.run_rounds` takes."""

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.combine import combined
from cvgl_ray.config import EStep
from cvgl_ray.em.loop import EStepRows, Matcher
from cvgl_ray.em.matching import PseudoLabels, label
from cvgl_ray.em.neighbourhood import Graphs, neighbourhood_scores
from cvgl_ray.search.exact import Nearest
from cvgl_ray.search.nearest import Found, cosines


def alignment_matcher(aligner: Aligner, estep: EStep, graphs: Graphs | None = None) -> Matcher:
    """A matcher of one process that holds all rows (estep.rows = 0), and the cells of all in the aligner.

    Each call is one round of the cells, too: it scores the pairs, labels them by vector and alignment
    together, and lets the aligner learn from the pairs that are labelled.
    """

    def match(_round: int, rows: EStepRows) -> PseudoLabels:
        vectors = torch.from_numpy(rows.query) @ torch.from_numpy(rows.reference).T
        scores = together(aligner, vectors, estep.neighbours)
        if estep.neighbourhood and graphs is not None:
            scores = neighbourhood_scores(scores, graphs, estep.neighbourhood)

        def nearests(k_query: int, k_reference: int) -> tuple[Found, Found]:
            return (
                _found(scores, k_query, rows.query, rows.reference),
                _found(scores.T, k_reference, rows.reference, rows.query),
            )

        labels = label(
            nearests,
            rows.query_rows,
            rows.reference_rows,
            match=estep.match,
            threshold=estep.threshold,
            share=rows.share,
        )
        aligner.learn(*labels.pairs())
        return labels

    return match


def together(aligner: Aligner, vectors: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Scores [Nq, Nr] of vectors (cosines) and cells together; aligns the pairs that are worth it.

    The first time all pairs are aligned, or, of many, those that the vectors propose; later those that the
    last round's alignment and these vectors find best together.
    """
    settings = aligner.settings
    if aligner.found is None:
        proposed = None
        if max(vectors.shape) > settings.all_below:
            proposed = proposals(vectors, settings.candidates)
        aligner.find_poses(proposed)
    else:
        last = torch.from_numpy(aligner.found.score)
        proposed = proposals(combined([last, vectors], neighbours)[0], settings.candidates)
    scores, aligner.weights = combined([aligner.align(proposed), vectors], neighbours)
    return scores


def proposals(scores: torch.Tensor, count: int) -> np.ndarray:
    """The best references of each query: [Nq, k] int64."""
    ids: np.ndarray = scores.topk(min(count, scores.shape[1]), dim=1).indices.numpy()
    return ids


def _found(scores: torch.Tensor, k: int, rows: np.ndarray, others: np.ndarray) -> Found:
    top = scores.topk(min(max(2, k), scores.shape[1]), dim=1)
    near = Nearest(top.indices.numpy(), top.values.numpy())
    return Found(near, cosines(rows, others, near.best()))

