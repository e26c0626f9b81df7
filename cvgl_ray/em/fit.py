"""A whole training in this process: what a Ray training of one worker does, without Ray."""

import numpy as np

from cvgl_ray.config import Config
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import Round, start


def fit(query: np.ndarray, reference: np.ndarray, config: Config) -> tuple[Learner, list[Round]]:
    """Train on frozen features [Nq, D] and [Nr, D] of any float type.

    The learner comes back with the round to keep, its adapter in evaluation mode.
    """
    judge = HalfModels(query, reference, config).judge if config.run.agreement else None
    learner, rounds = start(query, reference, config, judge)
    done = list(rounds)
    learner.return_to_best()
    learner.adapter.eval()
    return learner, done
