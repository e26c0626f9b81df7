"""95 % intervals of figures that are means over queries, by the percentile bootstrap (Efron, 1979)."""

import numpy as np

RESAMPLES = 1000
BOUNDS = (2.5, 97.5)


def intervals(values: np.ndarray, groups: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Lower and upper bounds [2, K] of the means of `values`.

    Whole groups are drawn, with all of their queries: those of one spot succeed and fail together, and say
    less than as many of different spots. The same draws at each call, so that two runs differ by their
    queries alone.

    Args:
        values: [Q, K] of each query, Q > 0.
        groups: [Q] the group of each query, of any type that sorts.
        resamples: how many sets of groups are drawn.
    """
    group = grouped(groups)
    queries = np.bincount(group)
    sums = np.stack([np.bincount(group, column) for column in values.T], axis=1)
    rng = np.random.default_rng(0)
    count = len(queries)
    means = np.empty((resamples, values.shape[1]))
    for row in means:
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        row[:] = (drawn @ sums) / (drawn @ queries)
    return np.percentile(means, BOUNDS, axis=0)


def grouped(groups: np.ndarray) -> np.ndarray:
    """The number [Q] of each query's group, as they come: no name of a group matters."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))[group]
    return number
