"""The M-step by gradient: steps of Adam on InfoNCE and reconstruction, data-parallel."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from cvgl_ray.config import MStep
from cvgl_ray.em import collective
from cvgl_ray.em.adapters import take
from cvgl_ray.em.batches import Batch, batch_of_labels, batches_of_pairs, local_rows
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.objective import Objective
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import Rows


class GradientLearner(Learner):
    """An objective and its optimiser.

    whole_batch: each step takes all rows of the E-step, labelled or not, as the reference implementation
    does; otherwise steps take batches of labelled pairs.
    """

    def __init__(
        self,
        objective: Objective,
        mstep: MStep,
        device: torch.device | str = "cpu",
        *,
        whole_batch: bool = False,
    ) -> None:
        self.objective = objective.to(device)
        super().__init__(objective.adapter, device)
        self.parallel: nn.Module = self.objective  # a caller may put DistributedDataParallel around it
        self.mstep, self.whole_batch = mstep, whole_batch
        kind = torch.optim.AdamW if mstep.optimizer == "adamw" else torch.optim.Adam
        learnable = [p for p in objective.parameters() if p.requires_grad]
        self.optimizer = kind(learnable, lr=mstep.learning_rate)
        steps = mstep.rounds * mstep.steps_per_round
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: cosine_with_warmup(step, steps, mstep.warmup_steps)
        )

    def m_step(
        self, labels: PseudoLabels, query: Rows, reference: Rows, rng: np.random.Generator
    ) -> dict[str, float]:
        """Take the round's steps; the last step's loss terms, gradient norm, temperature, and all pairs."""
        batches: Iterable[Batch]
        if self.whole_batch:
            batches = [batch_of_labels(labels)] * self.mstep.steps_per_round
        else:
            batches = batches_of_pairs(labels, self.mstep.batch_size, self.mstep.steps_per_round, rng)
        self.parallel.train()
        terms: dict[str, torch.Tensor] = {}
        norm, pairs = torch.zeros(()), 0
        for batch in batches:
            if not (batch.of_query >= 0).any():
                continue  # no pair passed the E-step: the adapter stays as it is
            terms = self._loss(batch, query, reference)
            norm = self._step(terms["loss"])
            pairs += int((batch.of_query >= 0).sum())
        scalars = {f"loss/{key}": _whole(key, value) for key, value in terms.items()}
        scalars["em/gradient_norm"], scalars["em/pairs"] = float(norm), pairs
        scalars["em/temperature"] = float((-self.objective.log_scale.detach()).exp())
        return scalars

    def _loss(self, batch: Batch, query: Rows, reference: Rows) -> dict[str, torch.Tensor]:
        """Loss terms of this worker's share of a batch."""
        arguments = []
        for features, rows in ((query, batch.query_rows), (reference, batch.reference_rows)):
            own, valid = local_rows(rows, collective.rank(), collective.world_size())
            arguments += [take(features, own, self.device), torch.from_numpy(valid).to(self.device)]
        terms: dict[str, torch.Tensor] = self.parallel(*arguments, batch)
        return terms

    def _step(self, loss: torch.Tensor) -> torch.Tensor:
        """One optimiser update; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad()
        loss.backward()
        norm = _gradient_norm(self.objective)
        if not torch.isfinite(norm):
            raise InputError(
                f"the loss is no longer finite in round {self.rounds_done}; lower mstep.learning_rate "
                "(the last round's checkpoint is kept)"
            )
        nn.utils.clip_grad_value_(self.objective.parameters(), self.mstep.clip_value)
        self.optimizer.step()
        self.scheduler.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "log_scale": self.objective.log_scale.detach(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Learner. The learning rate and a fixed temperature stay this learner's, not the state's."""
        super().load_state_dict(state)
        if self.objective.log_scale.requires_grad:
            with torch.no_grad():
                self.objective.log_scale.copy_(state["log_scale"])
        self.optimizer.load_state_dict(state["optimizer"])
        peak = self.mstep.learning_rate
        self.scheduler.load_state_dict({**state["scheduler"], "base_lrs": [peak]})
        [group], [factor] = self.optimizer.param_groups, self.scheduler.lr_lambdas
        group["initial_lr"], group["lr"] = peak, peak * factor(self.scheduler.last_epoch)


def cosine_with_warmup(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear over `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def _whole(key: str, value: torch.Tensor) -> float:
    """A loss term over all workers; "loss" carries the factor that cancels DDP's averaging."""
    summed = collective.total(value.detach())
    return float(summed) / (collective.world_size() if key == "loss" else 1)


def _gradient_norm(module: nn.Module) -> torch.Tensor:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
