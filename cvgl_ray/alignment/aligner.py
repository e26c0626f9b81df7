"""EM over pairs and poses: cells score the pairs that vectors propose, and both learn from those that agree.

A matcher for `em.loop`: it gets a round's embeddings of all rows, and gives pseudo-labels. In between it lays
cells on each other, takes both scores together, and, from the pairs found, fits what the next round uses: the
prior of the poses and the cells' adapter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from cvgl_ray.alignment.cell_adapter import adapted, aligned_rows, view_centres
from cvgl_ray.alignment.combine import mutual
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior, fit_prior
from cvgl_ray.em.attenuation import Attenuation
from cvgl_ray.em.neighbourhood import csls
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.views import QUERY, REFERENCE

Score = Callable[[Cells, Sequence[Cells], PosePrior, np.ndarray | None], Found]


@dataclass(frozen=True)
class Settings:
    """sample: queries whose poses are looked for among all headings and widths; candidates: references a
    query that are aligned, all where a view has no more than `all_below`; shrinkage: of the attenuation;
    cells: aligned cells that it is fitted to; neighbours: of CSLS."""

    sample: int = 64
    candidates: int = 32
    all_below: int = 512
    shrinkage: float = 0.5
    cells: int = 32_768
    neighbours: int = 10
    dtype: torch.dtype = torch.float32


class Aligner:
    """Cells of both views, and what is learned of them: adapter and prior.

    query: [Nq, H, C, n, n]; references: of each width [Nr, 1, C, m, m]; frozen, not normalised.
    """

    def __init__(self, query: Cells, references: Sequence[Cells], settings: Settings | None = None, score: Score | None = None) -> None:
        self.settings = settings or Settings()
        self.query, self.references = query, list(references)
        self.score = score or _score(self.settings.dtype)
        centre = view_centres([query], self.references)
        self.adapter = Attenuation(query.maps.shape[2], query.maps.shape[2], norm="view", centre=centre)
        self.prior = PosePrior.flat(query.maps.shape[1], len(self.references))
        self.found: Found | None = None  # [Nq, Nr]
        self.weights = np.ones(2) / 2  # of alignment and vector in the last round

    def embed(self) -> tuple[Cells, list[Cells]]:
        """Both views' cells as the adapter now embeds them."""
        dtype = self.settings.dtype
        return adapted(self.query, self.adapter, QUERY, dtype), [
            adapted(cells, self.adapter, REFERENCE, dtype) for cells in self.references
        ]

    def find_poses(self, proposed: np.ndarray | None = None, seed: int = 0) -> None:
        """Fit the prior to a sample of the queries; proposed [Nq, k]: their candidates, all where None."""
        chosen = np.random.default_rng(seed).permutation(len(self.query))[: self.settings.sample]
        query, references = self.embed()
        among = None if proposed is None else proposed[chosen]
        width = self.prior.width.copy()
        width[1::2] = -np.inf  # every other width will do to begin with
        found = self.score(query.of(chosen), references, replace(self.prior, width=width), among)
        rows, columns = _sure(found, self.settings.neighbours if among is None else 0)
        self._fit_prior(found, rows, columns)

    def align(self, proposed: np.ndarray | None = None) -> torch.Tensor:
        """Scores [Nq, Nr] of all pairs, by cells alone; of pairs not proposed those of an earlier round."""
        query, references = self.embed()
        found = self.score(query, references, self.prior, proposed)
        if proposed is None or self.found is None:
            assert proposed is None
            self.found = found
        else:
            rows = np.arange(len(proposed))[:, None]
            for field in fields(found):
                getattr(self.found, field.name)[rows, proposed] = getattr(found, field.name)
        return torch.from_numpy(self.found.score)

    def learn(self, queries: np.ndarray, references: np.ndarray) -> None:
        """Fit prior and adapter to pairs [p] and their poses, as the last `align` found them."""
        assert self.found is not None
        self._fit_prior(self.found, queries, references)
        poses = self.found.take((queries, references))
        one, other = aligned_rows(self.query, self.references, (queries, references), poses, self.settings.cells)
        differences = self.adapter.normalise(one, QUERY) - self.adapter.normalise(other, REFERENCE)
        self.adapter.fit(differences, self.settings.shrinkage)

    def _fit_prior(self, found: Found, rows: np.ndarray, columns: np.ndarray) -> None:
        right = found.take((rows, columns))
        scale = float(found.score.var() / max(right.score.mean() - found.score.mean(), 1e-6))
        shape = self.query.maps.shape[1], len(self.references)
        self.prior = fit_prior(right.heading, right.width, right.row, right.column, shape, scale)


def _sure(found: Found, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The half of the mutual pairs whose score leads the query's second best by most."""
    scores = torch.from_numpy(found.score)
    scores = csls(scores, neighbours) if neighbours else scores
    rows, columns = mutual(scores)
    top = scores.topk(2, dim=1).values
    lead = (top[:, 0] - top[:, 1]).numpy()[rows]
    kept = lead >= np.median(lead)
    return rows[kept], columns[kept]


def _score(dtype: torch.dtype) -> Score:
    return lambda query, references, prior, candidates: score_pairs(query, references, prior, candidates, dtype=dtype)

