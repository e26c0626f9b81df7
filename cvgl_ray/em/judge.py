"""How good a model is, without a label: do two models agree that each see half of the feature?

Scores of one model's own E-step rise as it grows sure of its mistakes. Two models of different halves of the
features' dimensions err on different rows, so that what both say follows the recall (experiments/LOG.md).
After co-training: Blum and Mitchell, COLT 1998.
"""

import math
from typing import Any, Protocol

import numpy as np

from cvgl_ray.config import Learning
from cvgl_ray.em import collective
from cvgl_ray.em.adapters import embed
from cvgl_ray.em.asked import labels_of_asked
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels, label_free_scores, pseudo_labels
from cvgl_ray.em.rounds import start
from cvgl_ray.features.views import QUERY, REFERENCE, Columns, Rows

CHOICE = "score"  # the score by which a sweep prefers one configuration to another; higher is better
FEWEST = 20  # images of each view; with fewer, chance alone gives scores that mean nothing
FEW, SPLITS = 100, 4  # with fewer images of a view, so many pairs of halves are averaged against chance
ALL_ASKED = 4096  # queries; of more, a random sample is asked, always among all references and queries
ASKED = 2048  # the size of that sample: the score's standard error is at most 0.011


class Laid(Protocol):
    """What the images' cells say of pairs, where they are laid on each other."""

    def labels(self, part: int, query: np.ndarray, reference: np.ndarray) -> PseudoLabels:
        """Mutual pairs by cells and by the embeddings [Nq, W] and [Nr, W] of a model together.

        part: 0 for the whole cells, 1 and 2 for their halves.
        """


class HalfModels:
    """Pairs of models of the configured kind, each trained on its half of the dimensions, round by round."""

    def __init__(self, query: np.ndarray, reference: np.ndarray, learning: Learning) -> None:
        """query [Nq, D], reference [Nr, D]: frozen features of any float type."""
        rng = np.random.default_rng(learning.seed)
        self.query, self.reference = query, reference
        self.few = min(len(query), len(reference)) < FEWEST
        self.asked = None
        splits = SPLITS if min(len(query), len(reference)) < FEW else 1
        columns = [part for _ in range(splits) for part in np.array_split(rng.permutation(query.shape[1]), 2)]
        if len(query) > ALL_ASKED:
            self.asked = np.sort(rng.choice(len(query), min(len(query), ASKED), replace=False))
        # The neighbours' term needs all rows, and a random batch is small as it is.
        asked = None if learning.estep.neighbourhood or learning.estep.rows else self.asked
        self.halves = []
        for part in columns if not self.few else ():
            q, r = Columns(query, part), Columns(reference, part)
            self.halves.append((q, r, *start(q, r, learning, asked=asked)))

    def state_dict(self) -> list[dict[str, Any]]:
        """The halves' states, so that a training that goes on need not do their rounds once more."""
        return [half.state_dict() for _, _, half, _ in self.halves]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Take over the halves' states, before the first round is judged."""
        for (_, _, half, _), state in zip(self.halves, states, strict=True):
            half.load_state_dict(state)

    def judge(self, learner: Learner, laid: Laid | None = None) -> dict[str, float]:
        """Label-free scores of a model that has done so many rounds, each in [0, 1]; none of few images.

        agreement: share of queries that both half models, after as many rounds, give the same reference;
        chance: the agreement expected of two models that give as many queries the same references, but not
        to the same ones; score: the agreement beyond chance, as a share of what chance leaves (Cohen's kappa,
        1960), times the share of the smaller view's rows that the model itself matches mutually; score_low
        and score_high: Wilson's 95 % interval of the score.

        All pairs are mutual ones by CSLS whatever the configuration, so that configurations can be compared.
        laid: where cells count too, and so each half model has half of them.
        With fewer than FEWEST images of a view there is too little to say, and the answer is empty. Rounds
        only go forward. Works in this process alone, whatever the number of workers.
        """
        if self.few:
            return {}
        labels = []
        with collective.alone():
            for number, (query, reference, half, rounds) in enumerate(self.halves):
                while half.rounds_done < learner.rounds_done:
                    next(rounds)
                labels.append(self._labels(half, query, reference, laid, 1 + number % 2))
            whole = self._labels(learner, self.query, self.reference, laid, 0)
            own = label_free_scores(whole, queries=len(self.query) if laid is None else 0)
        pairs = list(zip(labels[::2], labels[1::2], strict=True))
        agreement = float(np.mean([pair_agreement(*pair) for pair in pairs]))
        chance = float(np.mean([chance_agreement(*pair) for pair in pairs]))
        score = max(0.0, (agreement - chance) / max(1 - chance, 1e-9)) * own["mutual"]
        low, high = wilson(score, min(len(labels[0].query_rows), len(self.reference)))
        return {
            "agreement": agreement,
            "chance": chance,
            "score": score,
            "score_low": low,
            "score_high": high,
        }

    def _labels(
        self, learner: Learner, query: Rows, reference: Rows, laid: Laid | None, part: int
    ) -> PseudoLabels:
        training = learner.adapter.training
        learner.adapter.eval()
        z_query, z_reference = (
            embed(learner.adapter, rows, view, device=learner.device)
            for rows, view in ((query, QUERY), (reference, REFERENCE))
        )
        learner.adapter.train(training)
        if laid is not None:
            return laid.labels(part, z_query, z_reference)
        if self.asked is None:
            return pseudo_labels(z_query, z_reference, scores="csls", match="mutual")
        device = str(learner.device)
        return labels_of_asked(z_query, z_reference, self.asked, scores="csls", match="mutual", device=device)


def pair_agreement(one: PseudoLabels, other: PseudoLabels) -> float:
    """Share of queries, in [0, 1], that two E-steps over the same rows label with the same reference."""
    return float(((one.of_query == other.of_query) & (one.of_query >= 0)).mean())


def chance_agreement(one: PseudoLabels, other: PseudoLabels) -> float:
    """The mean of `pair_agreement` over all orders in which `other` may have met the queries, in [0, 1]."""
    counts = [
        np.bincount(labels.of_query[labels.of_query >= 0], minlength=len(labels.reference_rows))
        for labels in (one, other)
    ]
    return float(counts[0] @ counts[1] / len(one.of_query) ** 2)


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share seen in `count` cases (Wilson, 1927); both ends in [0, 1]."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
