"""A whole training in this process: what a Ray training of one worker does, without Ray."""

from collections.abc import Callable

import numpy as np

from cvgl_ray.config import Learning
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import Round, start


def fit(
    query: np.ndarray,
    reference: np.ndarray,
    learning: Learning,
    told: Callable[[Round], object] | None = None,
) -> tuple[Learner, list[Round]]:
    """Train on frozen features [Nq, D] and [Nr, D] of any float type.

    told: hears of each round as it is done. The learner comes back with the round to keep, its adapter in
    evaluation mode.
    """
    judge = HalfModels(query, reference, learning).judge if learning.agreement else None
    learner, rounds = start(query, reference, learning, judge)
    done = []
    for one in rounds:
        done.append(one)
        if told is not None:
            told(one)
    learner.return_to_best()
    learner.adapter.eval()
    return learner, done
