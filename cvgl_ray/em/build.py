"""From the configuration to an adapter and its M-step."""

import torch

from cvgl_ray.config import Config
from cvgl_ray.em.adapters import Attenuation, LinearAdapter, ViewCentred
from cvgl_ray.em.closed_form import ClosedFormLearner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.objective import Objective


def build_adapter(config: Config, dimension: int, centre: torch.Tensor | None = None) -> ViewCentred:
    """The configured adapter for features of a dimension; centre [2, D]: the views' means."""
    section = config.adapter
    if section.kind == "attenuation":
        return Attenuation(dimension, section.rank, norm=section.norm, centre=centre)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        return LinearAdapter(
            dimension,
            section.width,
            norm=section.norm,
            init=section.init,
            residual=section.residual,
            centre=centre,
        )


def build_learner(
    config: Config, dimension: int, centre: torch.Tensor | None = None, device: torch.device | str = "cpu"
) -> Learner:
    """The configured adapter and its M-step."""
    adapter = build_adapter(config, dimension, centre)
    if isinstance(adapter, Attenuation):
        return ClosedFormLearner(adapter, config.adapter.shrinkage, config.adapter.siblings, device)
    assert isinstance(adapter, LinearAdapter)
    objective = Objective(
        adapter,
        temperature=config.mstep.temperature,
        learn_temperature=config.mstep.learn_temperature,
        label_smoothing=config.mstep.label_smoothing,
        reconstruction_kind=config.loss.reconstruction,
        reconstruction_weight=config.loss.reconstruction_weight,
        orthogonality_weight=config.loss.orthogonality_weight,
    )
    return GradientLearner(objective, config.mstep, device, whole_batch=config.estep.rows > 0)
