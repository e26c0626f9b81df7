"""What the EM loop needs of an M-step, whichever it is, and what a checkpoint must hold of it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.selection import keeps_up
from cvgl_ray.features.views import Rows


class Learner(ABC):
    """An adapter, the number of rounds done, the last one's pseudo-labels and the examples of all."""

    def __init__(self, adapter: ViewCentred, device: torch.device | str = "cpu") -> None:
        self.adapter = adapter.to(device)
        self.device = torch.device(device)
        self.rounds_done = 0
        self.labels: PseudoLabels | None = None
        self.best: dict[str, Any] | None = None  # the round to keep, as `keep_best` left it
        self.examples: list[np.ndarray] = []  # of each round, see PseudoLabels

    @abstractmethod
    def m_step(
        self, labels: PseudoLabels, query: Rows, reference: Rows, rng: np.random.Generator
    ) -> dict[str, float]:
        """Update the adapter on a round's pseudo-labels; every worker of the training calls it.

        query [Nq, D], reference [Nr, D]: all frozen features. Returns scalars by TensorBoard's names.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and dicts only, so that a checkpoint loads with weights_only."""
        labels = None if self.labels is None else self.labels.as_tensors()
        return {
            "adapter": self.adapter.state_dict(),
            "rounds_done": self.rounds_done,
            "labels": labels,
            "examples": [torch.from_numpy(rows) for rows in self.examples],
            "best": self.best,
        }

    def keep_best(self, scores: dict[str, float]) -> None:
        """Remember the present adapter and labels if their "score" keeps up with the earlier rounds'.

        Without a score, which the judge gives of few images no more than without a judge, nothing is kept.
        """
        if "score" not in scores:
            return
        highest = -math.inf if self.best is None else self.best["highest"]
        if keeps_up(scores["score"], highest):
            assert self.labels is not None
            self.best = {
                "adapter": {name: value.clone() for name, value in self.adapter.state_dict().items()},
                "labels": self.labels.as_tensors(),
                "scores": {"rounds": self.rounds_done, **scores},
                "highest": max(highest, scores["score"]),
            }

    def return_to_best(self) -> dict[str, float]:
        """Take back the round to keep, and give its scores; without a judge the last round stays."""
        if self.best is not None:
            self.adapter.load_state_dict(self.best["adapter"])
            self.labels = PseudoLabels.from_tensors(self.best["labels"])
        return self.kept_scores()

    def kept_scores(self) -> dict[str, float]:
        """The judge's scores of the round to keep, and its number "rounds", which without a judge is all."""
        scores: dict[str, float] = {"rounds": self.rounds_done} if self.best is None else self.best["scores"]
        return scores

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a learner whose adapter, optimiser and rounds are configured as this one's.

        All else may differ, and this learner's own values are in force from the next round on.
        """
        self.adapter.load_state_dict(state["adapter"])
        self.rounds_done, self.best = state["rounds_done"], state["best"]
        self.labels = None if state["labels"] is None else PseudoLabels.from_tensors(state["labels"])
        self.examples = [rows.numpy() for rows in state["examples"]]
