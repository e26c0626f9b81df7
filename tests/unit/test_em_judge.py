"""The agreement of two models of half the features: high where the features tell, low where they do not."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from cvgl_ray.config import load_config
from cvgl_ray.em import judge
from cvgl_ray.em.fit import fit
from cvgl_ray.em.judge import HalfModels, chance_agreement, pair_agreement, wilson
from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.em.rounds import start
from cvgl_ray.features.views import unit_rows

LEARNING = load_config(None, ("mstep.rounds=2",)).learning


def views(noise, places=60, dimension=64, seed=0):
    """Two views of the same places under a shared bias a view and independent noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(places, dimension))
    return [
        (truth + rng.normal(size=dimension) + noise * rng.normal(size=truth.shape)).astype(np.float16)
        for _ in range(2)
    ]


def trained(query, reference, learning=LEARNING):
    """The model after its last round, which nobody has judged so far."""
    return fit(query, reference, replace(learning, agreement=False))[0]


def judged(query, reference):
    return HalfModels(query, reference, LEARNING).judge(trained(query, reference))


def test_it_falls_as_recall_falls_and_nears_zero_for_features_of_nothing():
    scores = [judged(*views(noise, places=100))["score"] for noise in (0.2, 1.0, 2.0)]
    assert scores[0] > 0.95
    assert scores == sorted(scores, reverse=True)
    unrelated = views(0.5, 100, seed=0)[0], views(0.5, 100, seed=1)[1]
    found = judged(*unrelated)
    # A model alone finds many mutual pairs there; two models do not find the same ones.
    assert found["agreement"] < 0.1
    assert found["score"] <= found["agreement"]


def test_rounds_of_the_halves_follow_the_learner_and_can_be_caught_up():
    query, reference = views(1.0)
    learner, rounds = start(query, reference, LEARNING)
    halves = HalfModels(query, reference, LEARNING)
    by_round = [halves.judge(learner) for _ in rounds]
    assert [half.rounds_done for _, _, half, _ in halves.halves] == [2] * 2 * judge.SPLITS
    assert by_round[-1] == HalfModels(query, reference, LEARNING).judge(learner)


def test_halves_go_on_from_a_checkpoint_with_the_values_of_then():
    query, reference = views(1.0, places=100)
    learning = load_config(None, ("mstep.rounds=3",)).learning
    changed = load_config(None, ("mstep.rounds=3", "adapter.shrinkage=1.0")).learning
    learner, rounds = start(query, reference, learning)
    before, after = HalfModels(query, reference, learning), HalfModels(query, reference, changed)
    next(rounds), next(rounds)
    before.judge(learner)
    after.load_state_dict(before.state_dict())
    assert after.judge(learner) == before.judge(learner)  # no round is done once more, with other values
    next(rounds)
    after.judge(learner)
    for _, _, half, _ in after.halves:
        assert half.rounds_done == 3
        assert half.adapter.factors.eq(1).all()  # a shrinkage of 1 leaves the features as they are


def test_the_halves_share_no_dimension_and_miss_none():
    query = np.tile(np.arange(1, 10, dtype=np.float16), (20, 1))
    halves = HalfModels(query, query, LEARNING).halves
    pairs = list(zip(halves[::2], halves[1::2], strict=True))
    assert len(pairs) == judge.SPLITS
    for pair in pairs:
        assert sorted(np.concatenate([q[:1][0] for q, _, _, _ in pair])) == list(range(1, 10))
        for q, r, _, _ in pair:
            np.testing.assert_array_equal(q[:], r[:])  # the same dimensions of both views


@pytest.mark.parametrize("overrides", [(), ("estep.neighbourhood=0",)])
def test_a_sample_of_the_queries_is_asked_and_says_the_same(monkeypatch, overrides):
    """The candidates stay: a score of 1 stays 1, and another one moves by chance alone."""
    learning = load_config(None, ("mstep.rounds=2", *overrides)).learning
    for noise, exact in ((0.2, True), (0.9, False)):
        query, reference = views(noise, places=120)
        learner = trained(query, reference, learning)
        monkeypatch.undo()
        everyone = HalfModels(query, reference, learning).judge(learner)
        monkeypatch.setattr(judge, "ALL_ASKED", 100)
        monkeypatch.setattr(judge, "ASKED", 80)
        halves = HalfModels(query, reference, learning)
        some = halves.judge(learner)
        assert len(halves.asked) == 80
        if exact:
            assert everyone["score"] > 0.98
            assert some["score"] > 0.98
        else:
            assert 0.1 < everyone["score"] < 0.8
            assert some["score"] == pytest.approx(everyone["score"], abs=0.12)


def test_half_models_never_train_an_index_that_the_sample_does_not_fill(monkeypatch):
    """An index of more lists than queries are asked is the model's affair: the halves search exactly."""
    monkeypatch.setattr(judge, "ALL_ASKED", 100)
    monkeypatch.setattr(judge, "ASKED", 50)
    query, reference = views(0.2, places=200)
    learning = load_config(None, ("estep.neighbourhood=0", "estep.index=IVF150,Flat;nprobe=150")).learning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = trained(query, reference, learning)
    assert HalfModels(query, reference, learning).judge(learner)["score"] > 0.9


def test_nobody_is_judged_by_a_handful_of_images():
    query, reference = views(0.2, places=19)
    halves = HalfModels(query, reference, LEARNING)
    learner, rounds = fit(query, reference, LEARNING)
    assert halves.judge(learner) == {}
    assert learner.best is None  # the last round is kept
    assert "labels/score" not in rounds[-1].scalars


@pytest.mark.parametrize(("queries", "references", "dimension"), [(20, 20, 512), (20, 50, 64), (40, 20, 64)])
def test_features_of_nothing_score_nothing_whatever_the_seed(queries, references, dimension):
    """200 seeds of more shapes: experiments/benchmarks/label_free.py."""
    found = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sides = [rng.normal(size=(n, dimension)).astype(np.float32) for n in (queries, references)]
        scores = fit(*sides, LEARNING)[0].return_to_best()
        found.append(scores["score"])
        assert scores["score_low"] <= scores["score"] <= scores["score_high"]
    assert max(found) < 0.2
    assert np.mean(found) < 0.05


def test_wilsons_interval_is_the_papers():
    np.testing.assert_allclose(wilson(0.5, 10), (0.2366, 0.7634), atol=1e-4)
    np.testing.assert_allclose(wilson(0.0, 20), (0.0, 0.1611), atol=1e-4)


def test_pairs_that_one_model_leaves_out_do_not_count():
    eye = np.eye(4, dtype=np.float32)
    same = pseudo_labels(eye, eye, scores="cosine")
    swapped = pseudo_labels(eye, eye[[1, 0, 2, 3]], scores="cosine")
    assert pair_agreement(same, same) == 1
    assert pair_agreement(same, swapped) == pytest.approx(0.5)
    assert chance_agreement(same, swapped) == pytest.approx(0.25)
    few = pseudo_labels(eye, unit_rows(np.ones((4, 4))), scores="cosine", threshold=0.9)
    assert pair_agreement(few, few) == 0


def test_a_collapse_is_undone_and_a_small_dip_is_not():
    query, reference = views(1.0)
    learner, rounds = start(query, reference, LEARNING)
    kept = []
    scores = iter([0.80, 0.79])
    for _ in rounds:
        learner.keep_best({"score": next(scores)})
        kept.append(learner.best["scores"]["rounds"])
    good = {name: value.clone() for name, value in learner.adapter.state_dict().items()}
    learner.adapter.factors.fill_(0.1)
    learner.keep_best({"score": 0.77})
    assert kept == [1, 2]
    assert learner.return_to_best() == {"rounds": 2, "score": 0.79}
    for name, value in learner.adapter.state_dict().items():
        assert (value == good[name]).all()
