"""The EM loop on a problem whose answer is known: two noisy views of the same latents."""

import functools
import io
import itertools
import math

import numpy as np
import pytest
import torch

from cvgl_ray.config import EStep, MStep
from cvgl_ray.em.adapter import Adapter
from cvgl_ray.em.batches import Batch
from cvgl_ray.em.embedding import embed
from cvgl_ray.em.learner import Learner, cosine_with_warmup
from cvgl_ray.em.loop import embed_share, local_matcher, m_steps, run_rounds
from cvgl_ray.em.objective import Objective
from cvgl_ray.em.views import QUERY, REFERENCE, view_mean
from cvgl_ray.errors import InputError

PLACES, DIMENSION = 150, 32
MSTEP = MStep(rounds=6, steps_per_round=10, batch_size=64, learning_rate=3e-3)
PAPER = EStep(rows=PLACES, scores="cosine", match="mutual", threshold=0.1)


@functools.cache
def views():
    """Query [150, 32] and reference [150, 32] float16 rows; row i of both shows place i."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(PLACES, 12))
    shared = rng.normal(size=(12, DIMENSION))
    sides = []
    for _ in range(2):
        own = shared + 0.5 * rng.normal(size=shared.shape)  # each view distorts the latents in its way,
        clutter = rng.normal(size=(PLACES, 6)) @ rng.normal(size=(6, DIMENSION))  # hides them,
        sides.append(latent @ own + clutter + 3 * rng.normal(size=DIMENSION))  # and has its own mean
    return tuple(side.astype(np.float16) for side in sides)


def new_learner(mstep=MSTEP, *, norm="view", features=None, **objective):
    torch.manual_seed(0)
    query, reference = features or views()
    centre = torch.from_numpy(np.stack([view_mean(query), view_mean(reference)]))
    return Learner(Objective(Adapter(DIMENSION, norm=norm, centre=centre), **objective), mstep)


def rounds_of(learner, estep=EStep(), mstep=MSTEP, features=None):  # noqa: B008, a frozen model
    query, reference = features or views()
    return run_rounds(
        learner, query, reference, estep=estep, mstep=mstep, seed=3, matcher=local_matcher(estep)
    )


def recall(adapter):
    """Share of queries whose own place is their best reference."""
    adapter.eval()
    z_q, z_r = (embed(adapter, rows, view) for rows, view in zip(views(), (QUERY, REFERENCE), strict=True))
    return float(((z_q @ z_r.T).argmax(1) == np.arange(PLACES)).mean())


def weights(learner):
    return learner.objective.state_dict()


def assert_same(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@functools.cache
def trained():
    """(learner, its rounds) of the undisturbed run."""
    learner = new_learner()
    return learner, list(rounds_of(learner))


def test_the_loop_learns_to_match_views_that_nobody_paired():
    frozen, centred = recall(Adapter(DIMENSION, norm="none")), recall(new_learner().objective.adapter)
    adapted = recall(trained()[0].objective.adapter)
    assert frozen < centred < adapted - 0.1, (frozen, centred, adapted)


def test_a_round_says_what_happened():
    _, rounds = trained()
    assert [done.number for done in rounds] == list(range(6))
    for done in rounds:
        assert all(math.isfinite(value) for value in done.scalars.values())
        assert {"loss/loss", "loss/info_nce", "loss/reconstruction", "em/mutual"} <= set(done.scalars)
        parts = [v for k, v in done.scalars.items() if k.startswith("loss/") and k != "loss/loss"]
        assert done.scalars["loss/loss"] == pytest.approx(sum(parts), rel=1e-5)
        labelled = len(done.labels.pairs()[0])
        assert done.scalars["mstep/pairs"] == 10 * min(labelled, MSTEP.batch_size)
    assert "em/churn" not in rounds[0].scalars
    assert rounds[-1].scalars["em/churn"] < rounds[1].scalars["em/churn"]
    assert rounds[-1].scalars["em/mutual"] > rounds[0].scalars["em/mutual"]


def test_two_runs_are_equal_bit_for_bit():
    again = new_learner()
    torch.manual_seed(99)  # nothing may hang on torch's global generator
    np.random.seed(99)
    assert len(list(rounds_of(again))) == MSTEP.rounds
    assert_same(weights(again), weights(trained()[0]))


@pytest.mark.parametrize(("estep", "norm"), [(EStep(), "view"), (PAPER, "batch")])
def test_a_resumed_run_ends_where_the_undisturbed_one_does(estep, norm):
    whole = new_learner(norm=norm)
    undisturbed = list(rounds_of(whole, estep))
    first = new_learner(norm=norm)
    for done in rounds_of(first, estep):
        if done.number == 2:
            break
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = new_learner(norm=norm)
    second.load_state_dict(torch.load(file, weights_only=True))
    resumed = list(rounds_of(second, estep))
    assert [done.number for done in resumed] == [3, 4, 5]
    assert_same(weights(second), weights(whole))
    for one, two in zip(resumed, undisturbed[3:], strict=True):
        times = {"time/e_step_s", "time/m_steps_s"}
        assert {k: v for k, v in one.scalars.items() if k not in times} == {
            k: v for k, v in two.scalars.items() if k not in times
        }
    assert not list(rounds_of(second, estep))  # all rounds are done


def test_a_fresh_learner_has_a_checkpoint_too():
    learner = new_learner()
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    other = new_learner()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert (other.rounds_done, other.labels) == (0, None)


def test_rounds_without_a_pair_keep_the_adapter():
    learner = new_learner()
    before = {name: value.clone() for name, value in weights(learner).items()}
    rounds = list(rounds_of(learner, EStep(threshold=1.0)))
    assert len(rounds) == MSTEP.rounds
    assert_same(weights(learner), before)
    for done in rounds:
        assert done.scalars["mstep/pairs"] == done.scalars["em/labelled"] == 0
        assert all(math.isfinite(value) for value in done.scalars.values())


def test_the_papers_loop_runs_and_learns():
    """One random batch an E-step, mutual pairs above 0.1, shared BatchNorm, L1 reconstruction."""
    mstep = MStep(rounds=60, steps_per_round=1, learning_rate=1e-2)
    learner = new_learner(mstep, norm="batch", reconstruction_kind="l1")
    rounds = list(rounds_of(learner, PAPER, mstep))
    for done in rounds:
        assert len(done.labels.query_rows) == len(np.unique(done.labels.reference_rows)) == PLACES
        assert len(np.unique(done.labels.query_rows)) < PLACES  # drawn with replacement
    assert (rounds[0].labels.query_rows != rounds[1].labels.query_rows).any()
    assert rounds[-1].scalars["mstep/pairs"] > rounds[0].scalars["mstep/pairs"]
    assert recall(learner.objective.adapter) > recall(Adapter(DIMENSION, norm="none")) + 0.2


def test_adam_and_a_fixed_temperature():
    mstep = MSTEP.model_copy(update={"optimizer": "adam", "rounds": 1})
    learner = new_learner(mstep, learn_temperature=False, temperature=0.05)
    (done,) = rounds_of(learner, mstep=mstep)
    assert done.scalars["mstep/temperature"] == pytest.approx(0.05)
    assert type(learner.optimizer) is torch.optim.Adam


@pytest.mark.parametrize("estep", [EStep(), PAPER])
@pytest.mark.parametrize("in_centre", [True, False])
def test_a_nan_feature_stops_the_run(estep, in_centre):
    query, reference = (rows.copy() for rows in views())
    reference[[5, 6], 3] = np.nan
    learner = new_learner(features=(query, reference) if in_centre else None)
    count = PLACES if in_centre else 2
    with pytest.raises(InputError, match=f"{count} of 150 reference embeddings are not finite in round 0"):
        list(rounds_of(learner, estep, features=(query, reference)))


@pytest.mark.parametrize("rate", [1e12, 1e30])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_learning_rate_that_diverges_stops_the_run(rate, weight):
    mstep = MSTEP.model_copy(update={"learning_rate": rate})
    learner = new_learner(mstep, reconstruction_weight=weight)
    with pytest.raises(InputError, match=r"finite in round \d.*lower mstep.learning_rate"):
        list(rounds_of(learner, mstep=mstep))


def test_the_round_that_fails_is_named_and_not_counted():
    learner = new_learner()
    rounds = rounds_of(learner)
    next(rounds)
    learner.objective.adapter.encoder.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="in round 1"):
        next(rounds)
    assert learner.rounds_done == 1


def test_gradients_are_clipped_before_a_step():
    learner = new_learner()
    rows = np.arange(16)
    scalars = m_steps(learner, *views(), [Batch(rows, rows, rows, rows)], clip_value=1e-6)
    assert scalars["mstep/gradient_norm"] > 1e-3  # as it was before clipping
    largest = max(p.grad.abs().max().item() for p in learner.objective.parameters())
    assert largest == pytest.approx(1e-6)


def test_one_worker_embeds_every_row():
    learner = new_learner()
    query, reference = views()
    share = embed_share(learner, query, reference[:40], EStep(), np.random.default_rng(0))
    np.testing.assert_array_equal(share.query_rows, np.arange(PLACES))
    assert share.reference.shape == (40, DIMENSION)
    np.testing.assert_array_equal(share.query, embed(learner.objective.adapter, query, QUERY))
    drawn = embed_share(learner, query, reference[:40], EStep(rows=60), np.random.default_rng(0))
    assert (len(drawn.query_rows), len(drawn.reference_rows)) == (60, 40)
    np.testing.assert_allclose(drawn.query, share.query[drawn.query_rows], atol=1e-6)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [cosine_with_warmup(step, 20, 4) for step in range(21)]
    assert factors[:5] == [0, 0.25, 0.5, 0.75, 1]
    assert all(a > b for a, b in itertools.pairwise(factors[4:]))
    assert factors[12] == pytest.approx(0.5)
    assert factors[20] == pytest.approx(0)
    assert cosine_with_warmup(0, 20, 0) == 1
    assert cosine_with_warmup(5, 3, 5) == 1  # a warm-up longer than the run
