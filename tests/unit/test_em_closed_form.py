"""The M-step in closed form: the attenuation of the pairs' differences, whoever chose the pairs."""

import numpy as np
import pytest
import torch

from cvgl_ray.em import closed_form
from cvgl_ray.em.adapters import Attenuation
from cvgl_ray.em.closed_form import ClosedFormLearner, fit_attenuation, sampled
from cvgl_ray.em.matching import PseudoLabels

DIMENSION = 8


def views():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, DIMENSION)).astype(np.float16), rng.normal(size=(9, DIMENSION))


def labels_of(of_query, query_rows=None):
    of_query = np.array(of_query)
    return PseudoLabels(
        query_rows=np.arange(len(of_query)) if query_rows is None else query_rows,
        reference_rows=np.arange(9),
        of_query=of_query,
        of_reference=np.full(9, -1),
        best_of_query=of_query,
        best_of_reference=np.zeros(9, dtype=np.int64),
        cosine=np.ones(len(of_query), np.float32),
        margin=np.zeros(len(of_query), np.float32),
        examples=np.zeros((0, 1), np.int64),
    )


def new_learner(norm="view"):
    torch.manual_seed(0)
    return ClosedFormLearner(
        Attenuation(DIMENSION, 5, norm=norm, centre=0.1 * torch.randn(2, DIMENSION)), 0.3
    )


def step(learner, labels, seed=0):
    return learner.m_step(labels, *views(), np.random.default_rng(seed))


@pytest.mark.parametrize("norm", ["view", "none"])
def test_the_fit_is_to_the_differences_of_the_kept_pairs(norm):
    learner, expected = new_learner(norm), new_learner(norm).adapter
    query_rows = np.array([11, 3, 3, 0, 19, 7])
    scalars = step(learner, labels_of([2, -1, 0, 5, 2, 8], query_rows))
    rows = []
    for q, r in ((11, 2), (3, 0), (0, 5), (19, 2), (7, 8)):
        one, two = (
            torch.from_numpy(side[[i]].astype(np.float32)) for side, i in zip(views(), (q, r), strict=True)
        )
        rows.append(expected.normalise(one, 0) - expected.normalise(two, 1))
    fit_attenuation(expected, torch.cat(rows), 0.3)
    torch.testing.assert_close(
        learner.adapter.encode(torch.eye(DIMENSION)), expected.encode(torch.eye(DIMENSION))
    )
    assert scalars == {"em/pairs": 5, "em/strongest_attenuation": float(expected.factors.min())}


def test_a_round_forgets_the_one_before_unless_it_has_no_pair():
    learner, fresh = new_learner(), new_learner()
    step(learner, labels_of([0, 1, 2]))
    step(learner, labels_of([4, 4, 6]))
    step(fresh, labels_of([4, 4, 6]))
    torch.testing.assert_close(learner.adapter.state_dict(), fresh.adapter.state_dict(), rtol=0, atol=0)
    assert step(learner, labels_of([-1, -1]))["em/pairs"] == 0
    torch.testing.assert_close(learner.adapter.state_dict(), fresh.adapter.state_dict(), rtol=0, atol=0)


def test_many_pairs_are_sampled_by_the_rounds_generator(monkeypatch):
    monkeypatch.setattr(closed_form, "MAX_PAIRS", 6)
    labels = labels_of(np.arange(20) % 9)
    factors = []
    for seed in (0, 0, 1):
        learner = new_learner()
        assert step(learner, labels, seed)["em/pairs"] == 20
        factors.append(learner.adapter.factors)
    assert torch.equal(factors[0], factors[1])
    assert not torch.equal(factors[0], factors[2])


def test_a_pair_less_by_rounding_leaves_the_others_in_the_sample():
    samples = [
        sampled(queries, 500, 64, np.random.default_rng(0))
        for queries in (np.arange(400), np.delete(np.arange(400), 7))
    ]
    both = np.intersect1d(np.arange(400)[samples[0]], np.delete(np.arange(400), 7)[samples[1]])
    assert len(both) >= 63
