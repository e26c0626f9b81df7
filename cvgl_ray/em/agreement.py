"""How good a model is, without a label: do two models agree that each see half of the feature?

Scores of one model's own E-step rise as it grows sure of its mistakes. Two models of different halves of the
features' dimensions err on different rows, so that what both say follows the recall (experiments/LOG.md).
After co-training: Blum and Mitchell, COLT 1998.
"""

from typing import Any

import numpy as np

from cvgl_ray.config import Config
from cvgl_ray.em import collective
from cvgl_ray.em.embedding import embed
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.loop import start
from cvgl_ray.em.matching import PseudoLabels, pseudo_labels
from cvgl_ray.em.selection import label_free_scores
from cvgl_ray.features.views import QUERY, REFERENCE

MAX_ROWS = 4096  # of a view; a larger one is judged by a random sample of so many


class HalfModels:
    """Two models of the configured kind, each trained on its half of the dimensions, round by round."""

    def __init__(self, query: np.ndarray, reference: np.ndarray, config: Config) -> None:
        """query [Nq, D], reference [Nr, D]: frozen features of any float type."""
        rng = np.random.default_rng(config.run.seed)
        self.query, self.reference = (_sample(rows, rng) for rows in (query, reference))
        self.halves = []
        for columns in np.array_split(rng.permutation(query.shape[1]), 2):
            q, r = self.query[:, columns], self.reference[:, columns]
            self.halves.append((q, r, *start(q, r, config)))

    def state_dict(self) -> list[dict[str, Any]]:
        """The halves' states, so that a training that goes on need not do their rounds once more."""
        return [half.state_dict() for _, _, half, _ in self.halves]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take over the halves' states, before the first round is judged."""
        for (_, _, half, _), state in zip(self.halves, states, strict=True):
            half.load_state_dict(state)

    def judge(self, learner: Learner) -> dict[str, float]:
        """Label-free scores of a model that has done so many rounds, each in [0, 1].

        agreement: share of queries that both half models, after as many rounds, give the same reference;
        score: the agreement times the share of the smaller view's rows that the model itself matches
        mutually. All pairs are mutual ones by CSLS whatever the configuration, so that configurations can be
        compared. Rounds only go forward. Works in this process alone, whatever the number of workers.
        """
        labels = []
        with collective.alone():
            for query, reference, half, rounds in self.halves:
                while half.rounds_done < learner.rounds_done:
                    next(rounds)
                labels.append(_labels(half, query, reference))
            own = label_free_scores(_labels(learner, self.query, self.reference))
        agreement = pair_agreement(*labels)
        return {"agreement": agreement, "score": agreement * own["mutual"]}


def pair_agreement(one: PseudoLabels, other: PseudoLabels) -> float:
    """Share of queries, in [0, 1], that two E-steps over the same rows label with the same reference."""
    return float(((one.of_query == other.of_query) & (one.of_query >= 0)).mean())


def _labels(learner: Learner, query: np.ndarray, reference: np.ndarray) -> PseudoLabels:
    training = learner.adapter.training
    learner.adapter.eval()
    sides = (
        embed(learner.adapter, rows, view, device=learner.device)
        for rows, view in ((query, QUERY), (reference, REFERENCE))
    )
    labels = pseudo_labels(*sides, scores="csls", match="mutual")
    learner.adapter.train(training)
    return labels


def _sample(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= MAX_ROWS:
        return rows
    return rows[np.sort(rng.choice(len(rows), MAX_ROWS, replace=False))]
