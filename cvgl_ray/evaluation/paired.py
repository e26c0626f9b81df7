"""Whether two runs differ: their results on the same queries, query by query."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from cvgl_ray.evaluation.bootstrap import grouped, intervals

FLIPS = 10_000  # draws of signs
TIES = 1e-12  # relative: sums that differ by rounding alone


class Difference(NamedTuple):
    """Means of two runs over the same queries, the second's less the first's, its 95 % interval, and p."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def paired(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> list[Difference]:
    """One difference per column of per-query results.

    The interval is the percentile bootstrap's of the differences. p, two-sided, is how often as large a
    difference comes about where each group's two results are exchanged at random: for results of 0 and 1,
    each query a group of its own, McNemar's test (1947), which is then computed exactly; else by FLIPS draws.

    Args:
        first, second: [Q, K] of each query, bool or float, Q > 0.
        groups: [Q] of any type that sorts; whole groups are drawn and exchanged (see `bootstrap.intervals`).
    """
    assert first.shape == second.shape
    changes = second.astype(np.float64) - first.astype(np.float64)
    low, high = intervals(changes, groups)
    alone = len(np.unique(groups)) == len(groups)
    found = []
    for column, change in enumerate(changes.T):
        binary = bool(np.isin(first[:, column], (0, 1)).all() and np.isin(second[:, column], (0, 1)).all())
        p = mcnemar(int((change > 0).sum()), int((change < 0).sum())) if alone and binary else None
        means = float(first[:, column].mean()), float(second[:, column].mean())
        p = _exchanged(change, groups) if p is None else p
        found.append(Difference(*means, float(change.mean()), float(low[column]), float(high[column]), p))
    return found


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test: gained, lost are the queries that one run alone has right."""
    return min(1.0, 2 * float(binom.cdf(min(gained, lost), gained + lost, 0.5)))


def _exchanged(change: np.ndarray, groups: np.ndarray) -> float:
    """The share of random signs of the groups by which the sum is as far from 0 as it is; never 0."""
    sums = np.bincount(grouped(groups), change)
    sums = sums[sums != 0]
    rng = np.random.default_rng(0)
    least = abs(sums.sum()) * (1 - TIES)
    chunk = max(1, 2**22 // max(1, len(sums)))
    as_far = 0
    for start in range(0, FLIPS, chunk):
        signs = rng.integers(0, 2, (min(chunk, FLIPS - start), len(sums)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ sums) >= least).sum())
    return (as_far + 1) / (FLIPS + 1)
