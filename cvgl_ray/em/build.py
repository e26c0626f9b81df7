"""From the configuration to an adapter and its M-step."""

import torch

from cvgl_ray.config import Adapter, Learning
from cvgl_ray.em.adapters import Attenuation, LinearAdapter, ViewCentred
from cvgl_ray.em.closed_form import ClosedFormLearner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.objective import Objective


def build_adapter(
    section: Adapter, dimension: int, centre: torch.Tensor | None = None, *, seed: int
) -> ViewCentred:
    """The configured adapter for features of a dimension.

    centre [2, D]: the views' means; seed: of random weights, where the adapter begins with such.
    """
    if section.kind == "attenuation":
        return Attenuation(dimension, section.rank, norm=section.norm, centre=centre)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LinearAdapter(
            dimension,
            section.width,
            norm=section.norm,
            init=section.init,
            residual=section.residual,
            centre=centre,
        )


def build_learner(
    learning: Learning,
    dimension: int,
    centre: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Learner:
    """The configured adapter and its M-step."""
    adapter = build_adapter(learning.adapter, dimension, centre, seed=learning.seed)
    if isinstance(adapter, Attenuation):
        return ClosedFormLearner(adapter, learning.adapter.shrinkage, learning.adapter.siblings, device)
    assert isinstance(adapter, LinearAdapter)
    objective = Objective(
        adapter,
        temperature=learning.mstep.temperature,
        learn_temperature=learning.mstep.learn_temperature,
        label_smoothing=learning.mstep.label_smoothing,
        reconstruction_kind=learning.loss.reconstruction,
        reconstruction_weight=learning.loss.reconstruction_weight,
        orthogonality_weight=learning.loss.orthogonality_weight,
    )
    return GradientLearner(objective, learning.mstep, device, whole_batch=learning.estep.rows > 0)
