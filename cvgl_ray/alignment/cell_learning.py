"""The M-step of the cells' adapter: fitted in closed form, or learned by gradient as the paper's is.

Both see the cells that lie on each other under the poses of a round's pseudo-labels, and nothing of labels.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cvgl_ray.config import Loss, MStep
from cvgl_ray.em.adapters import Attenuation, LinearAdapter, ViewCentred
from cvgl_ray.em.build import build_objective
from cvgl_ray.em.closed_form import fit_attenuation
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.features.views import QUERY, REFERENCE


class CellLearning(Protocol):
    """Makes an adapter, and fits it round by round."""

    def begin(self, centre: torch.Tensor) -> ViewCentred:
        """An adapter that only centres; centre [2, C]: the views' mean unit cells."""
        ...

    def fit(self, adapter: ViewCentred, query: torch.Tensor, reference: torch.Tensor) -> None:
        """Fit to frozen cells [n, C] of either view, row by row on each other."""
        ...


@dataclass(frozen=True)
class ClosedForm:
    """See `em.closed_form.fit_attenuation`."""

    shrinkage: float = 0.5

    def begin(self, centre: torch.Tensor) -> Attenuation:
        """See CellLearning."""
        channels = centre.shape[1]
        return Attenuation(channels, channels, centre=centre)

    def fit(self, adapter: ViewCentred, query: torch.Tensor, reference: torch.Tensor) -> None:
        """See CellLearning."""
        assert isinstance(adapter, Attenuation)
        differences = adapter.normalise(query, QUERY) - adapter.normalise(reference, REFERENCE)
        fit_attenuation(adapter, differences, self.shrinkage)


@dataclass(frozen=True)
class ByGradient:
    """The paper's encoder and decoder, square and from the identity: InfoNCE and reconstruction over cells.

    The other cells of a batch, of any image, are a cell's negatives. Each round goes on with the last one's
    adapter, and takes its steps with an optimiser of its own.
    """

    mstep: MStep
    loss: Loss
    seed: int = 0

    def begin(self, centre: torch.Tensor) -> LinearAdapter:
        """See CellLearning."""
        return LinearAdapter(centre.shape[1], centre=centre)

    def fit(self, adapter: ViewCentred, query: torch.Tensor, reference: torch.Tensor) -> None:
        """See CellLearning. Raises InputError where the loss is no longer finite."""
        assert isinstance(adapter, LinearAdapter)
        objective = build_objective(adapter, self.mstep, self.loss)
        learner = GradientLearner(objective, self.mstep.model_copy(update={"rounds": 1}))
        rng = np.random.default_rng(self.seed)
        learner.m_step(_each_other(len(query)), query.numpy(), reference.numpy(), rng)
        adapter.eval()


def cell_learning(kind: str, mstep: MStep, loss: Loss, seed: int) -> CellLearning:
    """The M-step of the kind that the vectors' adapter has, "attenuation" or "linear"."""
    return ClosedForm() if kind == "attenuation" else ByGradient(mstep, loss, seed)


def _each_other(count: int) -> PseudoLabels:
    """Labels by which each row of one view belongs to the row of the same number in the other."""
    rows, none = np.arange(count), np.zeros(count, np.float32)
    return PseudoLabels(rows, rows, rows, rows, rows, rows, none, none, np.zeros((0, 1), np.int64))
