"""From the configuration to an adapter and its M-step."""

import torch

from cvgl_ray.config import Adapter, Learning, Loss, MStep
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
    objective = build_objective(adapter, learning.mstep, learning.loss)
    return GradientLearner(objective, learning.mstep, device, whole_batch=learning.estep.rows > 0)


def build_objective(adapter: LinearAdapter, mstep: MStep, loss: Loss) -> Objective:
    """The configured losses of an adapter that is learned by gradient."""
    return Objective(
        adapter,
        temperature=mstep.temperature,
        learn_temperature=mstep.learn_temperature,
        label_smoothing=mstep.label_smoothing,
        reconstruction_kind=loss.reconstruction,
        reconstruction_weight=loss.reconstruction_weight,
        orthogonality_weight=loss.orthogonality_weight,
    )
