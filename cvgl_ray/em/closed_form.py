"""The M-step in closed form: fit the attenuation to the differences of the round's pseudo-pairs."""

import numpy as np
import torch

from cvgl_ray.em import collective
from cvgl_ray.em.attenuation import Attenuation
from cvgl_ray.em.batches import local_rows
from cvgl_ray.em.embedding import take
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.views import QUERY, REFERENCE

MAX_PAIRS = 2048  # a random sample this large estimates the covariance; the decomposition costs its cube


class ClosedFormLearner(Learner):
    """Fits an attenuation anew each round, from the frozen features of that round's pairs."""

    adapter: Attenuation

    def __init__(self, adapter: Attenuation, shrinkage: float, device: torch.device | str = "cpu") -> None:
        super().__init__(adapter, device)
        self.shrinkage = shrinkage

    @torch.no_grad()
    def m_step(
        self, labels: PseudoLabels, query: np.ndarray, reference: np.ndarray, rng: np.random.Generator
    ) -> dict[str, float]:
        """See Learner. Workers each take the differences of their share of the pairs, and gather them."""
        queries, references = labels.pairs()
        chosen = np.sort(rng.permutation(len(queries))[:MAX_PAIRS])
        if len(chosen):
            own, valid = local_rows(chosen, collective.rank(), collective.world_size())
            differences = self.adapter.normalise(take(query, queries[own], self.device), QUERY)
            differences -= self.adapter.normalise(take(reference, references[own], self.device), REFERENCE)
            counted = collective.gather(torch.from_numpy(valid).to(self.device, torch.float32)) > 0
            self.adapter.fit(collective.gather(differences)[counted], self.shrinkage)
        strongest = float(self.adapter.factors.min())
        return {"mstep/pairs": len(queries), "mstep/strongest_attenuation": strongest}
