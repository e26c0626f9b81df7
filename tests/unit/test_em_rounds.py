"""The EM loop on a problem whose answer is known: two noisy views of the same latents."""

import functools
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cvgl_ray.config import load_config
from cvgl_ray.em.adapters import embed
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.fit import fit
from cvgl_ray.em.rounds import embed_share, frozen_graphs, local_matcher, run_rounds
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import QUERY, REFERENCE, view_mean

PLACES, DIMENSION = 110, 32
LAST = "run.agreement=false"  # these tests look at the last round, whatever it is worth
CLOSED = load_config(None, ("run.seed=3", LAST)).learning
GRADIENT = (
    "adapter.kind=linear",
    "mstep.rounds=5",
    "mstep.batch_size=64",
    "mstep.learning_rate=3e-3",
    "run.seed=3",
    LAST,
)
LINEAR = load_config(None, GRADIENT).learning
PAPER = (  # but for the numbers of rows and rounds, the width and the learning rate
    "adapter.kind=linear",
    "adapter.norm=batch",
    "adapter.init=random",
    "estep.neighbourhood=0",
    f"estep.rows={PLACES}",
    "estep.scores=cosine",
    "estep.threshold=0.1",
    "estep.first_share=1.0",
    "mstep.steps_per_round=1",
    "loss.reconstruction=l1",
    LAST,
)
SMALL_PAPER = load_config(None, (*PAPER, "adapter.width=32", "mstep.rounds=6")).learning
KINDS = pytest.mark.parametrize("learning", [CLOSED, LINEAR, SMALL_PAPER], ids=["closed", "linear", "paper"])


@functools.cache
def views(images=1):
    """Query [110 * images, 32] and reference [110, 32] float16 rows; row i of both shows place i % 110."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(PLACES, 12))
    shared = rng.normal(size=(12, DIMENSION))
    sides = []
    for copies in (images, 1):
        own = shared + 0.5 * rng.normal(size=shared.shape)  # each view distorts the latents in its way,
        clutter = rng.normal(size=(PLACES * copies, 6)) @ rng.normal(size=(6, DIMENSION))  # hides them,
        sides.append(np.tile(latent, (copies, 1)) @ own + clutter + 3 * rng.normal(size=DIMENSION))
    return tuple(side.astype(np.float16) for side in sides)  # and has its own mean


def new_learner(learning=LINEAR, features=None):
    query, reference = features or views()
    return build_learner(
        learning, DIMENSION, torch.from_numpy(np.stack([view_mean(query), view_mean(reference)]))
    )


def rounds_of(learner, learning=LINEAR, features=None):
    query, reference = features or views()
    graphs = frozen_graphs(query, reference, learner.adapter) if learning.estep.neighbourhood else None
    return run_rounds(
        learner,
        query,
        reference,
        learning,
        matcher=local_matcher(learning.estep, graphs),
    )


def recall(adapter, features=None):
    """Share of queries whose own place is their best reference; no adapter: of the frozen features."""
    query, reference = features or views()
    rows = [row.astype(np.float32) for row in (query, reference)]
    if adapter is not None:
        rows = [embed(adapter.eval(), row, view) for row, view in zip(rows, (QUERY, REFERENCE), strict=True)]
    z_q, z_r = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows)
    return float(((z_q @ z_r.T).argmax(1) == np.arange(len(query)) % PLACES).mean())


def state(learner):
    return learner.adapter.state_dict()


def assert_same(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@functools.cache
def trained(learning):
    """(learner, its rounds) of the undisturbed run."""
    return fit(*views(), learning)


def through_a_file(learner, learning):
    """A new learner with the state of another, as a checkpoint hands it on."""
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    other = new_learner(learning)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize(("overrides", "images"), [((), 2), (GRADIENT, 1)], ids=["closed", "linear"])
def test_the_loop_learns_to_match_views_that_nobody_paired(overrides, images):
    features = views(images)
    learning = load_config(None, overrides).learning
    frozen, centred = recall(None, features), recall(new_learner(learning, features).adapter, features)
    learner, rounds = fit(*features, learning)
    assert not learner.adapter.training
    adapted = recall(learner.adapter, features)
    assert frozen < centred < adapted - 0.1, (frozen, centred, adapted)
    assert len(rounds) == learner.rounds_done == learning.mstep.rounds


@KINDS
def test_a_round_says_what_happened(learning):
    _, rounds = trained(learning)
    assert [done.number for done in rounds] == list(range(learning.mstep.rounds))
    for done in rounds:
        assert all(math.isfinite(value) for value in done.scalars.values())
        assert {"em/pairs", "labels/mutual", "time/e_step_s", "time/m_step_s"} <= set(done.scalars)
    assert "labels/churn" not in rounds[0].scalars
    if learning is not SMALL_PAPER:
        assert rounds[-1].scalars["labels/churn"] < rounds[1].scalars["labels/churn"]
        assert rounds[-1].scalars["labels/mutual"] > rounds[0].scalars["labels/mutual"]


@KINDS
def test_two_runs_are_equal_bit_for_bit(learning):
    torch.manual_seed(99)  # nothing may hang on the global generators
    np.random.seed(99)
    again, _ = fit(*views(), learning)
    assert_same(state(again), state(trained(learning)[0]))


@KINDS
def test_a_resumed_run_ends_where_the_undisturbed_one_does(learning):
    whole, undisturbed = trained(learning)
    first = new_learner(learning)
    rounds = rounds_of(first, learning)
    next(rounds), next(rounds)
    second = through_a_file(first, learning)
    resumed = list(rounds_of(second, learning))
    assert [done.number for done in resumed] == list(range(2, learning.mstep.rounds))
    assert_same(state(second), state(whole))
    for one, two in zip(resumed, undisturbed[2:], strict=True):
        times = {"time/e_step_s", "time/m_step_s"}
        assert {k: v for k, v in one.scalars.items() if k not in times} == {
            k: v for k, v in two.scalars.items() if k not in times
        }
    assert not list(rounds_of(second, learning))  # all rounds are done


@KINDS
def test_a_fresh_learner_has_a_checkpoint_too(learning):
    other = through_a_file(new_learner(learning), learning)
    assert (other.rounds_done, other.labels) == (0, None)


@pytest.mark.parametrize("learning", [CLOSED, LINEAR], ids=["closed", "linear"])
def test_rounds_without_a_pair_keep_the_adapter(learning):
    learning = replace(learning, estep=learning.estep.model_copy(update={"threshold": 1.0}))
    before = {name: value.clone() for name, value in state(new_learner(learning)).items()}
    learner, rounds = fit(*views(), learning)
    assert len(rounds) == learning.mstep.rounds
    assert_same(state(learner), before)
    for done in rounds:
        assert done.scalars["em/pairs"] == done.scalars["labels/labelled"] == 0
        assert all(math.isfinite(value) for value in done.scalars.values())


def test_the_papers_loop_runs_and_learns():
    """One random batch an E-step, mutual pairs above 0.1, shared BatchNorm, L1 reconstruction."""
    more = ("adapter.width=512", "mstep.rounds=40", "mstep.learning_rate=1e-2")
    learning = load_config(None, (*PAPER, *more)).learning
    learner, rounds = fit(*views(), learning)
    for done in rounds:
        assert len(done.labels.query_rows) == len(np.unique(done.labels.reference_rows)) == PLACES
        assert len(np.unique(done.labels.query_rows)) < PLACES  # drawn with replacement
    assert (rounds[0].labels.query_rows != rounds[1].labels.query_rows).any()
    assert rounds[-1].scalars["em/pairs"] > rounds[0].scalars["em/pairs"]
    assert recall(learner.adapter) > recall(None) + 0.2


@pytest.mark.parametrize("learning", [CLOSED, SMALL_PAPER], ids=["closed", "paper"])
@pytest.mark.parametrize("in_centre", [True, False])
def test_a_nan_feature_stops_the_run(learning, in_centre):
    query, reference = (rows.copy() for rows in views())
    reference[[5, 6], 3] = np.nan
    learner = new_learner(learning, (query, reference) if in_centre else None)
    count = PLACES if in_centre or learning is SMALL_PAPER else 2  # BatchNorm's statistics are of all rows
    with pytest.raises(
        InputError, match=f"{count} of {PLACES} reference embeddings are not finite in round 0"
    ):
        list(rounds_of(learner, learning, (query, reference)))


def test_the_round_that_fails_is_named_and_not_counted():
    learner = new_learner()
    rounds = rounds_of(learner)
    next(rounds)
    learner.adapter.encoder.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="in round 1"):
        next(rounds)
    assert learner.rounds_done == 1


def test_one_worker_embeds_every_row():
    learner = new_learner()
    query, reference = views()
    rng = np.random.default_rng(0)
    share = embed_share(learner, query, reference[:40], LINEAR.estep, rng)
    np.testing.assert_array_equal(share.query_rows, np.arange(PLACES))
    assert share.reference.shape == (40, DIMENSION)
    np.testing.assert_array_equal(share.query, embed(learner.adapter, query, QUERY))
    batch = LINEAR.estep.model_copy(update={"rows": 60})
    drawn = embed_share(learner, query, reference[:40], batch, rng)
    assert (len(drawn.query_rows), len(drawn.reference_rows)) == (60, 40)
    np.testing.assert_allclose(drawn.query, share.query[drawn.query_rows], atol=1e-6)


def test_graphs_are_of_the_normalised_frozen_features():
    query, reference = views()
    adapter = new_learner(CLOSED).adapter
    before = frozen_graphs(query, reference, adapter)
    for rows, view, graph in zip((query, reference), (QUERY, REFERENCE), before, strict=True):
        unit = embed(adapter, rows, view)  # untrained, an attenuation is the identity
        linked = graph.order[graph.links[[graph.place[7]]].indices]
        assert set(np.argsort(-(unit @ unit[7]))[1:12]) <= set(linked)  # ceil(sqrt 110) = 11
    after = frozen_graphs(query, reference, trained(CLOSED)[0].adapter)
    assert all((one.links != two.links).nnz == 0 for one, two in zip(before, after, strict=True))
