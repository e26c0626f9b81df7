"""The configured adapter and M-step, and nothing else, are what is built."""

import math

import pytest
import torch

from cvgl_ray.config import Adapter, load_config
from cvgl_ray.em.adapters import Attenuation, LinearAdapter
from cvgl_ray.em.build import build_adapter, build_learner
from cvgl_ray.em.closed_form import ClosedFormLearner
from cvgl_ray.em.gradient import GradientLearner


def test_the_default_is_an_attenuation_in_closed_form():
    centre = torch.randn(2, 8)
    overrides = ("adapter.rank=5", "adapter.shrinkage=0.25", "adapter.norm=none")
    learner = build_learner(load_config(None, overrides).learning, 8, centre)
    assert type(learner) is ClosedFormLearner
    assert type(learner.adapter) is Attenuation
    assert (learner.adapter.factors.shape, learner.adapter.norm, learner.shrinkage) == ((5,), "none", 0.25)
    assert torch.equal(learner.adapter.centre, centre)


def test_a_linear_adapter_is_learned_by_gradient():
    overrides = (
        "adapter.kind=linear",
        "adapter.norm=batch",
        "adapter.width=3",
        "mstep.temperature=0.2",
        "mstep.learn_temperature=false",
        "mstep.label_smoothing=0.05",
        "mstep.learning_rate=0.01",
        "loss.reconstruction=l1",
        "loss.reconstruction_weight=2.0",
        "loss.orthogonality_weight=3.0",
    )
    centre = torch.randn(2, 8)
    learner = build_learner(load_config(None, overrides).learning, 8, centre)
    assert type(learner) is GradientLearner
    adapter, objective = learner.adapter, learner.objective
    assert type(adapter) is LinearAdapter
    assert adapter is objective.adapter
    assert (adapter.norm, adapter.width, tuple(adapter.encoder.weight.shape)) == ("batch", 3, (3, 8))
    assert torch.equal(adapter.centre, centre)
    assert objective.log_scale.item() == pytest.approx(-math.log(0.2))
    assert not objective.log_scale.requires_grad
    assert objective.label_smoothing == 0.05
    assert (objective.reconstruction_kind, objective.reconstruction_weight) == ("l1", 2)
    assert objective.orthogonality_weight == 3
    assert learner.optimizer.param_groups[0]["initial_lr"] == 0.01


def test_a_random_batch_of_rows_is_one_batch_of_the_m_step():
    overrides = ("adapter.kind=linear", "estep.neighbourhood=0")
    assert not build_learner(load_config(None, overrides).learning, 8).whole_batch
    assert build_learner(load_config(None, (*overrides, "estep.rows=9")).learning, 8).whole_batch


def test_the_seed_decides_a_random_adapter_and_leaves_the_generator_alone():
    section = Adapter(kind="linear", init="random")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = [build_adapter(section, 8, seed=seed).encoder.weight for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
