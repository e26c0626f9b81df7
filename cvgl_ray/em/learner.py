"""All that a checkpoint of a training must hold: the objective, its optimiser and the rounds done."""

import math
from typing import Any

import torch
from torch import nn

from cvgl_ray.config import MStep
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.objective import Objective


class Learner:
    """An objective, its optimiser, the number of rounds done and the last round's pseudo-labels."""

    def __init__(self, objective: Objective, mstep: MStep, device: torch.device | str = "cpu") -> None:
        self.objective = objective.to(device)
        self.parallel: nn.Module = self.objective  # a caller may put DistributedDataParallel around it
        self.device = torch.device(device)
        kind = torch.optim.AdamW if mstep.optimizer == "adamw" else torch.optim.Adam
        learnable = [p for p in objective.parameters() if p.requires_grad]
        self.optimizer = kind(learnable, lr=mstep.learning_rate)
        steps = mstep.rounds * mstep.steps_per_round
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: cosine_with_warmup(step, steps, mstep.warmup_steps)
        )
        self.rounds_done = 0
        self.labels: PseudoLabels | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rounds_done": self.rounds_done,
            "labels": None if self.labels is None else self.labels.as_tensors(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.rounds_done = state["rounds_done"]
        self.labels = None if state["labels"] is None else PseudoLabels.from_tensors(state["labels"])


def cosine_with_warmup(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear over `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
