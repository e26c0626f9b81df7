"""EM over pairs and poses: cells score the pairs that vectors propose, and both learn from those that agree.

`matching` makes it a matcher for `em.rounds`, which gets a round's embeddings of all rows and gives
pseudo-labels. In between, cells are laid on each other and both scores are taken together. From the pairs
found follows what the next round uses: the prior of the poses and the cells' adapter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from cvgl_ray.alignment.cell_adapter import Adapted, rows_of_pairs, view_centres
from cvgl_ray.alignment.cell_learning import CellLearning, ClosedForm
from cvgl_ray.alignment.cell_source import Held, Picked, Source, first_of
from cvgl_ray.alignment.combine import Combination, mutual
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior, fit_prior
from cvgl_ray.alignment.scoring import Score, in_memory
from cvgl_ray.em.adapters import ViewCentred
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.csls import csls

LEVEL_QUERIES, LEVEL_REFERENCES = 24, 64  # whose pairs, nearly all wrong, tell the level of the scores


@dataclass(frozen=True)
class Settings:
    """How pairs are searched and what is learned of them.

    sample: queries whose poses are looked for among all headings and widths; candidates: references per query
    that are aligned by all their cells; all_below: where there are no more pairs, coarse cells of all of them
    tell the candidates, else the vectors alone; cells: aligned cells that the adapter is fitted to;
    neighbours: of CSLS; dtype: of the products of cells; memory: bytes of a node for cells, see
    `score_rows`'s room.
    """

    sample: int = 96
    candidates: int = 32
    # Coarse cells take a tenth of the time per pair, but see every pair: 4 million take 20 minutes of a CPU
    # with 84 poses, as long as 32 candidates of each of 11,000 queries. University-1652's 27 million would
    # take two hours in each round, and its vectors need to be right only among 32 of 701.
    all_below: int = 2**22
    cells: int = 32_768
    neighbours: int = 10
    dtype: torch.dtype = torch.float32
    memory: float = 2**33


class Aligner:
    """Cells of both views, and what is learned of them: adapter and prior.

    query: [Nq, H, C, n, n]; references: of each width [Nr, 1, C, m, m]; frozen, not normalised; in memory, or
    read as they are asked for. Strips, of [N, 1, C, 1, w] in both views, are quick to compare: all pairs are,
    where no candidates are proposed.
    learning: the M-step of the cells' adapter, the closed form by default.
    """

    def __init__(
        self,
        query: Cells | Source,
        references: Sequence[Cells] | Source,
        settings: Settings | None = None,
        score: Score | None = None,
        learning: CellLearning | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.query = Held([query]) if isinstance(query, Cells) else query
        self.references = Held(references) if isinstance(references, Sequence) else references
        self.score = score or in_memory(partial(score_pairs, dtype=self.settings.dtype))
        self.learning = learning or ClosedForm()
        [first] = first_of(self.query)
        self.strip = first.strip
        self.prior = PosePrior.flat(first.headings, len(first_of(self.references)))
        self.found: Found | None = None  # of the candidates [Nq, k]
        self.candidates: np.ndarray | None = None
        self.learned = False
        self.pairs: tuple[np.ndarray, np.ndarray, Found] | None = None  # rows [p] and poses last learned of
        self.combination: Combination | None = None  # of these scores with those of vectors
        self._scores: torch.Tensor | None = None  # of the last `align`, until something is learned

    @cached_property
    def adapter(self) -> ViewCentred:
        """Of the cells; where none was taken over, it only centres until something is learned."""
        return self.learning.begin(view_centres(self.query, self.references))

    def level(self) -> None:
        """Measure the scores' levels for the adapter as it is now, for whoever scores pairs with it."""
        self.prior = self._levelled(*self.compared())

    def find_poses(self) -> None:
        """Which poses occur at all, told by the pairs of a sample that coarse cells are sure of."""
        self._find_poses(*self.compared(coarse=True), None)

    def align(self, proposed: np.ndarray | None = None) -> torch.Tensor:
        """Scores [Nq, Nr] by cells alone; the candidates' are exact, all others' are told by coarse cells.

        proposed [Nq, k]: candidates from elsewhere, instead of coarse cells' own.
        """
        if self._scores is not None:
            return self._scores
        rough, fine, coarse = None, self.compared(), self.compared(coarse=True)
        if not self.learned and not np.isfinite(self.prior.spread):
            self._find_poses(*coarse, proposed)
        if proposed is None and self.strip:
            proposed = np.tile(np.arange(len(self.references)), (len(self.query), 1))
        if proposed is None:
            rough = self.score(*coarse, self._levelled(*coarse), None)
            order = csls(torch.from_numpy(rough.score), self.settings.neighbours)
            proposed = order.topk(min(self.settings.candidates, order.shape[1]), dim=1).indices.numpy()
        self.candidates = proposed
        self.prior = self._levelled(*fine)
        self.found = self.score(*fine, self.prior, proposed)
        self._scores = torch.from_numpy(filled(self.found.score, proposed, len(self.references), rough))
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
        pairs = queries, references
        self.learning.fit(
            self.adapter, *rows_of_pairs(self.query, self.references, pairs, poses, self.settings.cells)
        )
        self.learned, self._scores = True, None

    def _find_poses(self, query: Source, references: Source, proposed: np.ndarray | None) -> None:
        chosen = np.random.default_rng(0).permutation(len(query))[: self.settings.sample]
        among = None if proposed is None else proposed[chosen]
        found = self.score(Picked(query, chosen), references, self._levelled(query, references), among)
        if among is None:
            self._fit_prior(found, *_sure(found.score, self.settings.neighbours))
            return
        # A column is a query's candidate: pairs are told by the references that these are.
        scores = filled(found.score, among, len(references), None)
        rows, columns = _sure(scores, self.settings.neighbours)
        at = among[rows] == columns[:, None]
        self._fit_prior(found, rows[at.any(1)], at.argmax(1)[at.any(1)])

    def _levelled(self, query: Source, references: Source) -> PosePrior:
        """The prior with the level and unit of these cells' scores at each width, from random pairs."""
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(query))[:LEVEL_QUERIES]
        drawn = rng.permutation(len(references))[:LEVEL_REFERENCES]
        few = Held(query.of(chosen)), Held(references.of(drawn))
        among = np.tile(np.arange(len(drawn)), (len(chosen), 1))
        level, unit = np.zeros(len(self.prior.width)), np.ones(len(self.prior.width))
        for width in np.flatnonzero(self.prior.width > -np.inf):
            alone = np.where(np.arange(len(level)) == width, 0.0, -np.inf)
            prior = replace(
                self.prior, width=alone, level=np.zeros(len(alone)), unit=np.ones(len(alone)), scale=0.0
            )
            scores = self.score(*few, prior, among).score
            level[width], unit[width] = scores.mean(), max(float(scores.std()), 1e-6)
        return replace(self.prior, level=level, unit=unit)

    def compared(self, *, coarse: bool = False) -> tuple[Source, Source]:
        """Cells of both views as they are compared, embedded as they are read; coarse: quicker to compare."""
        made = partial(Adapted, adapter=self.adapter, dtype=self.settings.dtype, coarse=coarse)
        return made(self.query, view=QUERY), made(self.references, view=REFERENCE)

    def _fit_prior(self, found: Found, rows: np.ndarray, columns: np.ndarray) -> None:
        right = found.take((rows, columns))
        lead = max(float(right.score.mean() - found.score.mean()), 1e-6)
        self.prior = fit_prior(
            right.heading, right.width, right.row, right.column, self.prior, float(found.score.var()) / lead
        )


def filled(scores: np.ndarray, candidates: np.ndarray, references: int, rough: Found | None) -> np.ndarray:
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
