"""The M-step in closed form: fit the attenuation to the differences of the round's pseudo-pairs."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from cvgl_ray.em import collective
from cvgl_ray.em.adapters import Attenuation, take
from cvgl_ray.em.batches import local_rows
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.features.views import QUERY, REFERENCE, Rows
from cvgl_ray.search.topk import merge, nearest

Normalise = Callable[[np.ndarray], torch.Tensor]  # row ids -> unit rows [n, D]
_Rows = tuple[Rows, np.ndarray, int]  # all features of a view, row ids, the view
NEGLIGIBLE = 1e-10  # of the largest eigenvalue
SAMPLE = 1024  # images of a view whose sibling is looked for
CHUNK = 8192  # rows normalised at a time
MAX_PAIRS = 2048  # a random sample this large estimates the covariance; the decomposition costs its cube


class ClosedFormLearner(Learner):
    """Fits an attenuation anew each round, from the frozen features of that round's pairs.

    siblings: weight of the differences within a view that has several images a place (see `siblings`).
    """

    adapter: Attenuation

    def __init__(
        self,
        adapter: Attenuation,
        shrinkage: float,
        siblings: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(adapter, device)
        self.shrinkage, self.siblings = shrinkage, siblings
        self._within: torch.Tensor | None = None  # differences of siblings, the same in every round

    @torch.no_grad()
    def m_step(
        self, labels: PseudoLabels, query: Rows, reference: Rows, rng: np.random.Generator
    ) -> dict[str, float]:
        """See Learner. A round without a pair leaves the adapter as it is."""
        queries, references = labels.pairs()
        chosen = sampled(queries, len(query), MAX_PAIRS, rng)
        if len(chosen):
            across = self._differences(
                (query, queries[chosen], QUERY), (reference, references[chosen], REFERENCE)
            )
            if self._within is None:
                self._within = self.siblings**0.5 * self._differences_within(query, reference)
            fit_attenuation(self.adapter, torch.cat([across, self._within]), self.shrinkage)
        strongest = float(self.adapter.factors.min())
        return {"em/pairs": len(queries), "em/strongest_attenuation": strongest}

    def _differences_within(self, query: Rows, reference: Rows) -> torch.Tensor:
        """Differences of siblings [n, D]: of the view that has several images a place, if one has."""
        found = [torch.empty(0, self.adapter.dimension, device=self.device)]
        views = ((query, len(reference), QUERY), (reference, len(query), REFERENCE))
        for features, others, view in views if self.siblings else ():
            normalise = partial(self._rows, features, view)
            # Workers on unlike machines may round unlike and find others: one decides.
            own = siblings(normalise, len(features), others) if collective.rank() == 0 else None
            pairs = collective.from_rank_zero(own)
            if len(pairs):
                one, other = pairs.T
                found.append(self._differences((features, one, view), (features, other, view)))
        return torch.cat(found)

    def _differences(self, one: _Rows, other: _Rows) -> torch.Tensor:
        """Differences of normalised rows, pair by pair: [n, D]. Workers take a share each and gather all."""
        own, valid = local_rows(np.arange(len(one[1])), collective.rank(), collective.world_size())
        sides = [self._rows(features, view, rows[own]) for features, rows, view in (one, other)]
        counted = collective.gather(torch.from_numpy(valid).to(self.device, torch.float32)) > 0
        return collective.gather(sides[0] - sides[1])[counted]

    def _rows(self, features: Rows, view: int, rows: np.ndarray) -> torch.Tensor:
        return self.adapter.normalise(take(features, rows, self.device), view)


def sampled(queries: np.ndarray, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Places of a random sample, of `most` or all, of queries [p], which are some of `count` rows.

    Each row draws for itself: a pair more or less, by rounding, leaves all others in the sample.
    """
    return np.sort(np.argsort(rng.random(count)[queries], kind="stable")[:most])


def fit_attenuation(adapter: Attenuation, differences: torch.Tensor, shrinkage: float) -> None:
    """Fit to the differences query - reference [n, D] of normalised features of pseudo-pairs."""
    directions, factors = pair_attenuation(differences, shrinkage, len(adapter.factors))
    adapter.directions.zero_()[: len(factors)] = directions
    adapter.factors.fill_(1.0)[: len(factors)] = factors


def pair_attenuation(
    differences: torch.Tensor, shrinkage: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions [r, D] and factors [r], r <= rank, of the pairs' covariance's shrunk inverse square root.

    With S = mean d d^T / 2 over the differences d [n, D], m the mean of its eigenvalues that can be non-zero
    (trace / min(n, D)) and shrinkage a in (0, 1], the map is ((1 - a) S + a m I)^(-1/2), scaled so that
    directions without any difference keep their length: f = sqrt(a m / ((1 - a) lambda + a m)). Source:
    within-class covariance normalisation, Hatch et al., Interspeech 2006, on pseudo-pairs instead of classes.
    """
    eigenvalues, directions = _principal(differences.double() / (2 * len(differences)) ** 0.5, rank)
    floor = shrinkage * eigenvalues.sum() / len(eigenvalues)
    strongest = eigenvalues[: len(directions)]
    factors = torch.sqrt(floor / ((1 - shrinkage) * strongest + floor))
    return directions.to(differences.dtype), factors.to(differences.dtype)


def _principal(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All min(n, D) eigenvalues of X^T X, falling, for rows X [n, D] float64, and the first's directions.

    Directions [r, D], r <= count, leave out those of rounding alone. The smaller of X^T X and X X^T is
    decomposed: a third of the time of X's singular values, and float64 makes up for the squares.
    """
    wide = len(rows) < rows.shape[1]
    eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((eigenvalues[:count] > NEGLIGIBLE * eigenvalues[:1].sum()).sum())
    directions = vectors[:, :kept].T
    return eigenvalues, directions @ rows / eigenvalues[:kept, None].sqrt() if wide else directions


def siblings(normalise: Normalise, count: int, others: int) -> np.ndarray:
    """Pairs [p, 2] of row ids that are each other's nearest within a view of `count` images.

    They show the same place as far as the frozen features tell; no folder is asked. normalise: from row ids
    to unit rows [n, D].

    others: images of the other view. Where there are not more than about one image a place, which a view of
    no more images than the other tells, nobody has a sibling and none is looked for. A large view is sampled.
    """
    if round(count / max(1, others)) < 2:
        return np.empty((0, 2), dtype=np.int64)
    rng = np.random.default_rng(count)
    rows = np.sort(rng.choice(count, min(count, SAMPLE), replace=False))
    forth = _nearest_other(normalise, rows, count)
    back = _nearest_other(normalise, forth, count)
    pairs = np.sort(np.stack([rows, forth], axis=1)[back == rows], axis=1)
    return np.unique(pairs, axis=0)


def _nearest_other(normalise: Normalise, rows: np.ndarray, count: int) -> np.ndarray:
    """The nearest other row of each of `rows` [n] among all `count`: ids [n]."""
    asked = normalise(rows).cpu().numpy()
    starts = range(0, count, CHUNK)
    blocks = (normalise(np.arange(start, min(start + CHUNK, count))).cpu().numpy() for start in starts)
    two = merge([nearest(asked, block, 2) for block in blocks], starts, 2).ids
    return np.where(two[:, 0] == rows, two[:, 1], two[:, 0])
