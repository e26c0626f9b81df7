"""EM over pairs and poses: cells score the pairs that vectors propose, and both learn from those that agree.

`matching` makes it a matcher for `em.rounds`, which gets a round's embeddings of all rows and gives
pseudo-labels. In between, cells are laid on each other and both scores are taken together. From the pairs
found follows what the next round uses: the prior of the poses and the cells' adapter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cvgl_ray.alignment.cell_adapter import adapted, aligned_rows, halved, view_centres
from cvgl_ray.alignment.cell_learning import CellLearning, ClosedForm
from cvgl_ray.alignment.combine import Combination, mutual
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior, fit_prior
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.csls import csls

LEVEL_QUERIES, LEVEL_REFERENCES = 24, 64  # whose pairs, nearly all wrong, tell the level of the scores

Score = Callable[[Cells, Sequence[Cells], PosePrior, np.ndarray | None], Found]


@dataclass(frozen=True)
class Settings:
    """How pairs are searched and what is learned of them.

    sample: queries whose poses are looked for among all headings and widths; candidates: references per query
    that are aligned by all their cells; all_below: a reference view of no more rows is first searched by
    coarse cells, a larger one by the vectors alone; cells: aligned cells that the adapter is fitted to;
    neighbours: of CSLS; dtype: of the products of cells.
    """

    sample: int = 96
    candidates: int = 32
    all_below: int = 1024
    cells: int = 32_768
    neighbours: int = 10
    dtype: torch.dtype = torch.float32


class Aligner:
    """Cells of both views, and what is learned of them: adapter and prior.

    query: [Nq, H, C, n, n]; references: of each width [Nr, 1, C, m, m]; frozen, not normalised. Strips, of
    [N, 1, C, 1, w] in both views, are quick to compare: all pairs are, where no candidates are proposed.
    learning: the M-step of the cells' adapter, the closed form by default.
    """

    def __init__(
        self,
        query: Cells,
        references: Sequence[Cells],
        settings: Settings | None = None,
        score: Score | None = None,
        learning: CellLearning | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.query, self.references = query, list(references)
        self.score, self.learning = score or _score(self.settings.dtype), learning or ClosedForm()
        self.adapter = self.learning.begin(view_centres([query], self.references))
        self.prior = PosePrior.flat(query.headings, len(self.references))
        self.found: Found | None = None  # of the candidates [Nq, k]
        self.candidates: np.ndarray | None = None
        self.learned = False
        self.pairs: tuple[np.ndarray, np.ndarray, Found] | None = None  # rows [p] and poses last learned of
        self.combination: Combination | None = None  # of these scores with those of vectors
        self._scores: torch.Tensor | None = None  # of the last `align`, until something is learned

    def level(self) -> None:
        """Measure the scores' levels for the adapter as it is now, for whoever scores pairs with it."""
        self.prior = self._levelled(*self._embedded())

    def find_poses(self) -> None:
        """Which poses occur at all, told by the pairs of a sample that coarse cells are sure of."""
        query, references = self._embedded()
        self._find_poses(*_coarse(query, references), None)

    def align(self, proposed: np.ndarray | None = None) -> torch.Tensor:
        """Scores [Nq, Nr] by cells alone; the candidates' are exact, all others' are told by coarse cells.

        proposed [Nq, k]: candidates from elsewhere, instead of coarse cells' own.
        """
        if self._scores is not None:
            return self._scores
        query, references = self._embedded()
        rough, coarse = None, _coarse(query, references)
        if not self.learned and not np.isfinite(self.prior.spread):
            self._find_poses(*coarse, proposed)
        if proposed is None and query.strip:
            proposed = np.tile(np.arange(len(references[0])), (len(query), 1))
        if proposed is None:
            rough = self.score(*coarse, self._levelled(*coarse), None)
            order = csls(torch.from_numpy(rough.score), self.settings.neighbours)
            proposed = order.topk(min(self.settings.candidates, order.shape[1]), dim=1).indices.numpy()
        self.candidates = proposed
        self.prior = self._levelled(query, references)
        self.found = self.score(query, references, self.prior, proposed)
        self._scores = torch.from_numpy(_filled(self.found.score, proposed, len(self.references[0]), rough))
        return self._scores

    def learn(self, queries: np.ndarray, references: np.ndarray) -> None:
        """Fit prior and adapter to pairs [p] and their poses, as the last `align` found them.

        Pairs that were no candidates are left out; without any all stays as it is.
        """
        assert self.found is not None
        assert self.candidates is not None
        at = self.candidates[queries] == references[:, None]
        queries, references, place = queries[at.any(1)], references[at.any(1)], at.argmax(1)[at.any(1)]
        if not len(queries):
            return
        self._fit_prior(self.found, queries, place)
        poses = self.found.take((queries, place))
        self.pairs = queries, references, poses
        self.learning.fit(
            self.adapter,
            *aligned_rows(self.query, self.references, (queries, references), poses, self.settings.cells),
        )
        self.learned, self._scores = True, None

    def _find_poses(self, query: Cells, references: Sequence[Cells], proposed: np.ndarray | None) -> None:
        chosen = np.random.default_rng(0).permutation(len(query))[: self.settings.sample]
        among = None if proposed is None else proposed[chosen]
        found = self.score(query.of(chosen), references, self._levelled(query, references), among)
        if among is None:
            self._fit_prior(found, *_sure(found.score, self.settings.neighbours))
            return
        # A column is a query's candidate: pairs are told by the references that these are.
        scores = _filled(found.score, among, len(references[0]), None)
        rows, columns = _sure(scores, self.settings.neighbours)
        at = among[rows] == columns[:, None]
        self._fit_prior(found, rows[at.any(1)], at.argmax(1)[at.any(1)])

    def _levelled(self, query: Cells, references: Sequence[Cells]) -> PosePrior:
        """The prior with the level and unit of these cells' scores at each width, from random pairs."""
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(query))[:LEVEL_QUERIES]
        drawn = rng.permutation(len(references[0]))[:LEVEL_REFERENCES]
        among = np.tile(drawn, (len(chosen), 1))
        level, unit = np.zeros(len(references)), np.ones(len(references))
        for width in np.flatnonzero(self.prior.width > -np.inf):
            alone = np.where(np.arange(len(references)) == width, 0.0, -np.inf)
            prior = replace(
                self.prior, width=alone, level=np.zeros(len(alone)), unit=np.ones(len(alone)), scale=0.0
            )
            scores = self.score(query.of(chosen), references, prior, among).score
            level[width], unit[width] = scores.mean(), max(float(scores.std()), 1e-6)
        return replace(self.prior, level=level, unit=unit)

    def _embedded(self) -> tuple[Cells, list[Cells]]:
        dtype = self.settings.dtype
        return adapted(self.query, self.adapter, QUERY, dtype), [
            adapted(cells, self.adapter, REFERENCE, dtype) for cells in self.references
        ]

    def _fit_prior(self, found: Found, rows: np.ndarray, columns: np.ndarray) -> None:
        right = found.take((rows, columns))
        lead = max(float(right.score.mean() - found.score.mean()), 1e-6)
        self.prior = fit_prior(
            right.heading, right.width, right.row, right.column, self.prior, float(found.score.var()) / lead
        )


def _coarse(query: Cells, references: Sequence[Cells]) -> tuple[Cells, list[Cells]]:
    """Cells that are quicker to compare; strips as they are."""
    if query.strip:
        return query, list(references)
    return halved(query), [halved(cells) for cells in references]


def _filled(scores: np.ndarray, candidates: np.ndarray, references: int, rough: Found | None) -> np.ndarray:
    """Scores [Nq, k] of the candidates among those of all references [Nq, Nr].

    Those of the others: the coarse ones brought to the same scale, by the candidates that have both; without
    coarse ones each query's least.
    """
    if rough is None:
        filled = np.repeat(scores.min(axis=1, keepdims=True), references, axis=1)
    else:
        both = np.take_along_axis(rough.score, candidates, axis=1)
        slope, offset = np.polyfit(both.ravel(), scores.ravel(), 1)
        filled = (slope * rough.score + offset).astype(np.float32)
    np.put_along_axis(filled, candidates, scores, axis=1)
    return filled


def _sure(found: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a matrix of scores, the half of the mutual pairs that lead the query's second best by most."""
    scores = csls(torch.from_numpy(found), neighbours)
    rows, columns = mutual(scores)
    top = scores.topk(2, dim=1).values
    lead = (top[:, 0] - top[:, 1]).numpy()[rows]
    kept = lead >= np.median(lead)
    return rows[kept], columns[kept]


def _score(dtype: torch.dtype) -> Score:
    return lambda query, references, prior, candidates: score_pairs(
        query, references, prior, candidates, dtype=dtype
    )
