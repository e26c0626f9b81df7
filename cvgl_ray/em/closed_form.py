"""The M-step in closed form: fit the attenuation to the differences of the round's pseudo-pairs."""

from functools import partial

import numpy as np
import torch

from cvgl_ray.em import collective
from cvgl_ray.em.attenuation import Attenuation
from cvgl_ray.em.batches import local_rows
from cvgl_ray.em.embedding import take
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.siblings import siblings
from cvgl_ray.features.views import QUERY, REFERENCE, Rows

_Rows = tuple[Rows, np.ndarray, int]  # all features of a view, row ids, the view
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
        chosen = np.sort(rng.permutation(len(queries))[:MAX_PAIRS])
        if len(chosen):
            across = self._differences(
                (query, queries[chosen], QUERY), (reference, references[chosen], REFERENCE)
            )
            if self._within is None:
                self._within = self.siblings**0.5 * self._differences_within(query, reference)
            self.adapter.fit(torch.cat([across, self._within]), self.shrinkage)
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
