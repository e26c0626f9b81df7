"""A whole training in this process: what a Ray training of one worker does, without Ray."""

import numpy as np

from cvgl_ray.config import Learning
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import Round, start


def fit(query: np.ndarray, reference: np.ndarray, learning: Learning) -> tuple[Learner, list[Round]]:
    """Train on frozen features [Nq, D] and [Nr, D] of any float type.

    The learner comes back with the round to keep, its adapter in evaluation mode.
    """
    judge = HalfModels(query, reference, learning).judge if learning.agreement else None
    learner, rounds = start(query, reference, learning, judge)
    done = list(rounds)
    learner.return_to_best()
    learner.adapter.eval()
    return learner, done
