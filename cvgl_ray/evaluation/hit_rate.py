"""VIGOR's hit rate: whether a right reference comes first, those of the query's margin passed over."""

import numpy as np
from torch import Tensor

from cvgl_ray.search.ranks import Relevant
from cvgl_ray.search.topk import top_k


def hits(query: Tensor, gallery: Tensor, relevant: Relevant, near: Relevant) -> np.ndarray:
    """[Q] bool: a right reference ranks first, those that are near passed over, as VIGOR's evaluation counts.

    A near reference that ranks first is thus no hit by itself. Ties are pessimistic.
    """
    depth = int(relevant.number.max(initial=0) + near.number.max(initial=0)) + 1
    columns, scores = (side.numpy() for side in top_k(query, gallery, min(depth, len(gallery))))
    right, passed = (among(columns, side) for side in (relevant, near))
    best = np.where(right, scores, -np.inf).max(axis=1)
    wrong = np.where(right | passed, -np.inf, scores).max(axis=1)
    return best > wrong


def among(columns: np.ndarray, relevant: Relevant) -> np.ndarray:
    """Which of the references `columns` [Q, k] are among a query's relevant ones: [Q, k] bool."""
    position = np.arange(relevant.number.max(initial=0))
    if not len(position):
        return np.zeros(columns.shape, bool)
    rows = relevant.rows[np.minimum(relevant.first[:, None] + position, len(relevant.rows) - 1)]
    rows = np.where(position < relevant.number[:, None], rows, -1)
    return (columns[:, :, None] == rows[:, None]).any(axis=2)
