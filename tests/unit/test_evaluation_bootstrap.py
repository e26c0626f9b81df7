"""Intervals of shares: against the binomial's, and wider where queries hang together."""

import numpy as np
import pytest

from cvgl_ray.evaluation.bootstrap import intervals


def test_the_interval_of_a_share_is_the_binomials():
    share, queries = 0.3, 2000
    hits = np.arange(queries)[:, None] < share * queries
    low, high = intervals(hits, np.arange(queries))
    deviation = 1.96 * np.sqrt(share * (1 - share) / queries)
    assert low == pytest.approx(share - deviation, abs=0.003)
    assert high == pytest.approx(share + deviation, abs=0.003)


def test_it_holds_the_truth_19_times_of_20():
    rng = np.random.default_rng(1)
    hits = rng.random((300, 200)) < 0.6  # 200 experiments of 300 queries
    low, high = intervals(hits, np.arange(300), resamples=300)
    assert np.mean((low <= 0.6) & (high >= 0.6)) == pytest.approx(0.95, abs=0.03)


def test_queries_that_succeed_together_say_less():
    hits = (np.arange(400) < 200)[:, None]
    alone = np.ptp(intervals(hits, np.arange(400)))
    together = np.ptp(intervals(hits, np.arange(400) // 20))
    assert together == pytest.approx(alone * np.sqrt(20), rel=0.15)


def test_names_of_groups_do_not_matter_and_one_group_has_no_width():
    hits = np.random.default_rng(0).random((60, 3)) < 0.5
    numbers = np.arange(60) // 3
    names = np.array([f"{value % 7}-{value}" for value in numbers])
    np.testing.assert_array_equal(intervals(hits, numbers), intervals(hits, names))
    np.testing.assert_array_equal(intervals(hits, np.zeros(60)), np.stack([hits.mean(axis=0)] * 2))
