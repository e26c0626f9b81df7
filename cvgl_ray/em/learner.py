"""What the EM loop needs of an M-step, whichever it is, and what a checkpoint must hold of it."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.matching import PseudoLabels


class Learner(ABC):
    """An adapter, the number of rounds done, and the last round's pseudo-labels."""

    def __init__(self, adapter: ViewCentred, device: torch.device | str = "cpu") -> None:
        self.adapter = adapter.to(device)
        self.device = torch.device(device)
        self.rounds_done = 0
        self.labels: PseudoLabels | None = None

    @abstractmethod
    def m_step(
        self, labels: PseudoLabels, query: np.ndarray, reference: np.ndarray, rng: np.random.Generator
    ) -> dict[str, float]:
        """Update the adapter on a round's pseudo-labels; every worker of the training calls it.

        query [Nq, D], reference [Nr, D]: all frozen features. Returns scalars by TensorBoard's names.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and dicts only, so that a checkpoint loads with weights_only."""
        labels = None if self.labels is None else self.labels.as_tensors()
        return {"adapter": self.adapter.state_dict(), "rounds_done": self.rounds_done, "labels": labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a learner of the same configuration."""
        self.adapter.load_state_dict(state["adapter"])
        self.rounds_done = state["rounds_done"]
        self.labels = None if state["labels"] is None else PseudoLabels.from_tensors(state["labels"])
