"""Candidates are laid until one is clearly the best, and no further."""

import numpy as np

from cvgl_ray.alignment.combine import Combination
from cvgl_ray.alignment.early import laid_until_clear
from cvgl_ray.alignment.poses import Found

TOGETHER = Combination(np.array([0.8, 0.2]), np.array([1.0, 0.1]), 4.0)
QUERIES, CANDIDATES = 200, 32


def scene(lead):
    """Vectors' scores [Q, k], falling; cells' scores: random pairs' but for the right candidate's lead."""
    rng = np.random.default_rng(0)
    similarities = -np.sort(-0.1 * rng.standard_normal((QUERIES, CANDIDATES)), axis=1).astype(np.float32)
    right = rng.geometric(0.5, QUERIES).clip(max=CANDIDATES) - 1
    scores = rng.standard_normal((QUERIES, CANDIDATES)).astype(np.float32)
    scores[np.arange(QUERIES), right] += lead
    return similarities, scores, right


def laying(scores):
    def lay(queries, columns):
        poses = Found.empty(scores[queries, columns].shape)
        poses.score[:] = scores[queries, columns]
        poses.width[:] = np.arange(CANDIDATES)[columns]
        return poses

    return lay


def best(made):
    return np.where(made.laid, made.log_odds, -np.inf).argmax(1)


def test_a_clear_lead_ends_the_search_with_the_answer_of_all_candidates():
    similarities, scores, right = scene(lead=9.0)
    every = laid_until_clear(similarities, TOGETHER, laying(scores), doubt=0.0)
    assert every.laid.all()
    np.testing.assert_allclose(every.log_odds, TOGETHER.log_odds([scores, similarities]), rtol=1e-5)
    made = laid_until_clear(similarities, TOGETHER, laying(scores))
    assert made.laid.sum(1).mean() < 8
    assert (best(made) == best(every)).all()
    assert (best(made) == right).mean() > 0.99
    at = made.laid.nonzero()
    np.testing.assert_array_equal(made.found.score[at], scores[at])
    np.testing.assert_array_equal(made.found.width[at], at[1])


def test_without_a_lead_all_are_laid():
    similarities, scores, _ = scene(lead=0.0)
    level = np.zeros_like(similarities)
    assert laid_until_clear(level, TOGETHER, laying(np.clip(scores, -2, 2))).laid.all()


def test_no_fewer_are_laid_than_are_asked_for():
    similarities, scores, _ = scene(lead=20.0)
    assert laid_until_clear(similarities, TOGETHER, laying(scores), first=7).laid.sum(1).min() == 7
    few = laid_until_clear(similarities[:, :3], TOGETHER, laying(scores[:, :3]), first=7)
    assert few.laid.all()
