"""The M-step by gradient: its steps, its optimiser and what it says."""

import itertools

import numpy as np
import pytest
import torch

from cvgl_ray.config import MStep
from cvgl_ray.em.adapters import LinearAdapter
from cvgl_ray.em.gradient import GradientLearner, cosine_with_warmup
from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.em.objective import Objective
from cvgl_ray.errors import InputError

DIMENSION = 8


def views():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(24, DIMENSION)).astype(np.float32)
    return query, (query + 0.3 * rng.normal(size=query.shape)).astype(np.float32)


def new_learner(*, whole_batch=False, objective=None, **mstep):
    torch.manual_seed(0)
    settings = MStep(**{"rounds": 2, "steps_per_round": 5, "batch_size": 8, "learning_rate": 3e-3, **mstep})
    made = Objective(LinearAdapter(DIMENSION, norm="none"), **(objective or {}))
    return GradientLearner(made, settings, whole_batch=whole_batch)


def labels_of(**settings):
    query, reference = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in views())
    return pseudo_labels(query, reference, **settings)


def step(learner, labels=None):
    return learner.m_step(labels or labels_of(), *views(), np.random.default_rng(0))


def test_steps_lower_the_loss_and_say_so():
    learner = new_learner(rounds=20)
    scalars = [step(learner) for _ in range(8)]
    assert scalars[-1]["loss/loss"] < scalars[0]["loss/loss"]
    for done in scalars:
        parts = [v for k, v in done.items() if k.startswith("loss/") and k != "loss/loss"]
        assert done["loss/loss"] == pytest.approx(sum(parts), rel=1e-5)
        assert done["em/gradient_norm"] > 0
        assert done["em/pairs"] == 5 * 8


def test_a_whole_batch_takes_every_row_in_every_step():
    labels = labels_of(threshold=0.95)
    assert 0 < len(labels.pairs()[0]) < 24
    scalars = step(new_learner(whole_batch=True), labels)
    assert scalars["em/pairs"] == 5 * len(labels.pairs()[0])


def test_no_pair_is_no_step():
    learner = new_learner()
    before = {name: value.clone() for name, value in learner.objective.state_dict().items()}
    scalars = step(learner, labels_of(threshold=1.0))
    assert (scalars["em/pairs"], scalars["em/gradient_norm"]) == (0, 0)
    torch.testing.assert_close(dict(learner.objective.state_dict()), before, rtol=0, atol=0)


def test_adam_and_a_fixed_temperature():
    learner = new_learner(optimizer="adam", objective={"learn_temperature": False, "temperature": 0.05})
    assert step(learner)["em/temperature"] == pytest.approx(0.05)
    assert type(learner.optimizer) is torch.optim.Adam
    assert type(new_learner().optimizer) is torch.optim.AdamW


def test_gradients_are_clipped_before_a_step():
    learner = new_learner(clip_value=1e-6, steps_per_round=1)
    assert step(learner)["em/gradient_norm"] > 1e-3  # as it was before clipping
    largest = max(p.grad.abs().max().item() for p in learner.objective.parameters())
    assert largest == pytest.approx(1e-6)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_learning_rate_that_diverges_stops_the_run(weight):
    learner = new_learner(learning_rate=1e30, objective={"reconstruction_weight": weight})
    learner.rounds_done = 4
    with pytest.raises(InputError, match=r"finite in round 4.*lower mstep.learning_rate"):
        step(learner)


def test_optimiser_schedule_and_temperature_are_in_the_checkpoint():
    whole, first, second = new_learner(), new_learner(), new_learner()
    step(whole), step(first)
    second.load_state_dict(first.state_dict())
    assert step(second) == step(whole)
    one, two = second.state_dict(), whole.state_dict()
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert one["log_scale"] != new_learner().state_dict()["log_scale"]


def test_a_state_taken_over_is_learned_from_with_the_own_settings():
    fixed = {"learn_temperature": False, "temperature": 0.05}
    taken = new_learner(objective=fixed)
    step(taken)
    learner = new_learner(learning_rate=1e-2, objective={**fixed, "temperature": 0.1})
    learner.load_state_dict(taken.state_dict())
    assert learner.adapter.encoder.weight.equal(taken.adapter.encoder.weight)
    taken_over = [
        learner.optimizer.param_groups[0]["lr"] / taken.optimizer.param_groups[0]["lr"],
        *learner.scheduler.base_lrs,
    ]
    assert taken_over == pytest.approx([1e-2 / 3e-3, 1e-2])
    assert step(learner)["em/temperature"] == pytest.approx(0.1)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)  # 10 of 10 steps are done
    for state in learner.optimizer.state.values():
        assert state["step"] == 10


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [cosine_with_warmup(step, 20, 4) for step in range(21)]
    assert factors[:5] == [0, 0.25, 0.5, 0.75, 1]
    assert all(a > b for a, b in itertools.pairwise(factors[4:]))
    assert factors[12] == pytest.approx(0.5)
    assert factors[20] == pytest.approx(0)
    assert cosine_with_warmup(0, 20, 0) == 1
    assert cosine_with_warmup(5, 3, 5) == 1  # a warm-up longer than the run
