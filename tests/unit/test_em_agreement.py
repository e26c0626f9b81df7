"""The agreement of two models of half the features: high where the features tell, low where they do not."""

import numpy as np
import pytest

from cvgl_ray.config import load_config
from cvgl_ray.em import agreement
from cvgl_ray.em.agreement import HalfModels, pair_agreement
from cvgl_ray.em.fit import fit
from cvgl_ray.em.loop import start
from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.features.views import unit_rows

CONFIG = load_config(None, ("mstep.rounds=2",))


def views(noise, places=60, dimension=64, seed=0):
    """Two views of the same places under a shared bias a view and independent noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(places, dimension))
    return [
        (truth + rng.normal(size=dimension) + noise * rng.normal(size=truth.shape)).astype(np.float16)
        for _ in range(2)
    ]


def judged(query, reference, config=CONFIG):
    return HalfModels(query, reference, config).judge(fit(query, reference, config)[0])


def test_it_falls_as_recall_falls_and_nears_zero_for_features_of_nothing():
    scores = [judged(*views(noise))["score"] for noise in (0.2, 1.0, 2.0)]
    assert scores[0] > 0.95
    assert scores == sorted(scores, reverse=True)
    unrelated = views(0.5, seed=0)[0], views(0.5, seed=1)[1]
    found = judged(*unrelated)
    # A model alone finds many mutual pairs there; two models do not find the same ones.
    assert found["agreement"] < 0.1
    assert found["score"] <= found["agreement"]


def test_rounds_of_the_halves_follow_the_learner_and_can_be_caught_up():
    query, reference = views(1.0)
    learner, rounds = start(query, reference, CONFIG)
    halves = HalfModels(query, reference, CONFIG)
    by_round = [halves.judge(learner) for _ in rounds]
    assert [half.rounds_done for _, _, half, _ in halves.halves] == [2, 2]
    assert by_round[-1] == HalfModels(query, reference, CONFIG).judge(learner)


def test_halves_go_on_from_a_checkpoint_with_the_values_of_then():
    query, reference = views(1.0)
    config = load_config(None, ("mstep.rounds=3",))
    changed = load_config(None, ("mstep.rounds=3", "adapter.shrinkage=1.0"))
    learner, rounds = start(query, reference, config)
    before, after = HalfModels(query, reference, config), HalfModels(query, reference, changed)
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
    query = np.tile(np.arange(1, 10, dtype=np.float16), (5, 1))
    halves = HalfModels(query, query, CONFIG).halves
    assert sorted(np.concatenate([q[0] for q, _, _, _ in halves])) == list(range(1, 10))
    for q, r, _, _ in halves:
        np.testing.assert_array_equal(q, r)  # the same dimensions of both views


def test_large_views_are_judged_by_a_sample(monkeypatch):
    monkeypatch.setattr(agreement, "MAX_ROWS", 50)
    query, reference = views(0.2, places=60)
    halves = HalfModels(query, reference, CONFIG)
    assert (len(halves.query), len(halves.reference)) == (50, 50)
    # Partners that the other view's sample lacks cannot be found: at most 5/6 of the queries have one.
    assert 0.5 < halves.judge(fit(query, reference, CONFIG)[0])["agreement"] < 0.95


def test_pairs_that_one_model_leaves_out_do_not_count():
    eye = np.eye(4, dtype=np.float32)
    same = pseudo_labels(eye, eye, scores="cosine")
    swapped = pseudo_labels(eye, eye[[1, 0, 2, 3]], scores="cosine")
    assert pair_agreement(same, same) == 1
    assert pair_agreement(same, swapped) == pytest.approx(0.5)
    few = pseudo_labels(eye, unit_rows(np.ones((4, 4))), scores="cosine", threshold=0.9)
    assert pair_agreement(few, few) == 0


def test_a_collapse_is_undone_and_a_small_dip_is_not():
    query, reference = views(1.0)
    learner, rounds = start(query, reference, CONFIG)
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
