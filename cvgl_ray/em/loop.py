"""The EM loop of one worker: rounds of one E-step over all rows and a few M-steps on its pseudo-labels.

The same code runs in a single process and in every worker of a Ray training. Nothing here depends on the
number of workers: all random draws come from (seed, round) and describe the batch as a whole.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cvgl_ray.config import EStep, MStep
from cvgl_ray.em import collective
from cvgl_ray.em.batches import Batch, batch_of_labels, batches_of_pairs, draw_rows, local_rows
from cvgl_ray.em.embedding import embed, take
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels, pseudo_labels
from cvgl_ray.em.selection import label_free_scores
from cvgl_ray.em.views import QUERY, REFERENCE
from cvgl_ray.errors import InputError


@dataclass(frozen=True)
class EStepRows:
    """What one worker hands to the matcher: all row ids of the round, and embeddings of its own share.

    query_rows, reference_rows: global row ids over all workers; query [n, W], reference [m, W] float32: this
    worker's share, the rank-th of `numpy.array_split(rows, workers)`.
    """

    query_rows: np.ndarray
    reference_rows: np.ndarray
    query: np.ndarray
    reference: np.ndarray


Matcher = Callable[[int, EStepRows], PseudoLabels]


@dataclass(frozen=True)
class Round:
    """What happened in a round: its pseudo-labels and its scalars, by TensorBoard's names."""

    number: int
    labels: PseudoLabels
    scalars: dict[str, float]


def local_matcher(estep: EStep) -> Matcher:
    """The matcher of a single process, which holds all rows itself."""
    return lambda _round, rows: match_rows(rows.query, rows.reference, rows, estep)


def match_rows(query: np.ndarray, reference: np.ndarray, rows: EStepRows, estep: EStep) -> PseudoLabels:
    """Pseudo-labels of all embeddings of a round, by the configured policy."""
    return pseudo_labels(
        query,
        reference,
        query_rows=rows.query_rows,
        reference_rows=rows.reference_rows,
        scores=estep.scores,
        neighbours=estep.neighbours,
        match=estep.match,
        threshold=estep.threshold,
        factory=estep.index,
    )


def run_rounds(
    learner: Learner,
    query: np.ndarray,
    reference: np.ndarray,
    *,
    estep: EStep,
    mstep: MStep,
    seed: int,
    matcher: Matcher,
) -> Iterator[Round]:
    """Do the rounds that are left, yielding each when it is done.

    query [Nq, D], reference [Nr, D]: frozen features of any float type, all rows, the same on every worker.
    Raises InputError when the embeddings or the loss are not finite.
    """
    while learner.rounds_done < mstep.rounds:
        number = learner.rounds_done
        rng = np.random.default_rng((seed, number))
        started = time.perf_counter()
        share = embed_share(learner, query, reference, estep, rng)
        _check_finite(share, number)
        labels = matcher(number, share)
        e_done = time.perf_counter()
        batches: Iterable[Batch]
        if estep.rows:  # the reference's loop: the E-step's own random batch, unlabelled rows included
            batches = [batch_of_labels(labels)] * mstep.steps_per_round
        else:
            batches = batches_of_pairs(labels, mstep.batch_size, mstep.steps_per_round, rng)
        scalars = m_steps(learner, query, reference, batches, mstep.clip_value)
        scalars |= {f"em/{key}": v for key, v in label_free_scores(labels, learner.labels).items()}
        scalars["time/e_step_s"], scalars["time/m_steps_s"] = e_done - started, time.perf_counter() - e_done
        learner.rounds_done, learner.labels = number + 1, labels
        yield Round(number, labels, scalars)


def embed_share(
    learner: Learner, query: np.ndarray, reference: np.ndarray, estep: EStep, rng: np.random.Generator
) -> EStepRows:
    """Draw the E-step's rows (all of them, or a random batch a view) and embed this worker's share."""
    query_rows, reference_rows = np.arange(len(query)), np.arange(len(reference))
    if estep.rows:
        # A drone batch is drawn with replacement because the reference implementation draws so.
        query_rows = draw_rows(len(query), estep.rows, rng, replace=True)
        reference_rows = draw_rows(len(reference), estep.rows, rng, replace=False)
    shares = (
        np.array_split(rows, collective.world_size())[collective.rank()]
        for rows in (query_rows, reference_rows)
    )
    own_query, own_reference = shares
    adapter = learner.objective.adapter
    return EStepRows(
        query_rows,
        reference_rows,
        embed(adapter, query, QUERY, own_query, device=learner.device),
        embed(adapter, reference, REFERENCE, own_reference, device=learner.device),
    )


def _check_finite(share: EStepRows, number: int) -> None:
    for view, rows in (("query", share.query), ("reference", share.reference)):
        broken = int((~np.isfinite(rows)).any(axis=1).sum())
        if broken:
            raise InputError(
                f"{broken} of {len(rows)} {view} embeddings are not finite in round {number}; look for NaN "
                "in the features, or lower mstep.learning_rate (the last round's checkpoint is kept)"
            )


def m_steps(
    learner: Learner, query: np.ndarray, reference: np.ndarray, batches: Iterable[Batch], clip_value: float
) -> dict[str, float]:
    """Take one optimiser step a batch; the last step's loss terms, gradient norm, temperature and pairs."""
    learner.parallel.train()
    terms: dict[str, torch.Tensor] = {}
    norm, pairs = torch.zeros(()), 0
    for batch in batches:
        if not (batch.of_query >= 0).any():
            continue  # no pair passed the E-step: the adapter stays as it is
        rows = [
            local_rows(r, collective.rank(), collective.world_size())
            for r in (batch.query_rows, batch.reference_rows)
        ]
        (own_query, query_valid), (own_reference, reference_valid) = rows
        terms = learner.parallel(
            take(query, own_query, learner.device),
            torch.from_numpy(query_valid).to(learner.device),
            take(reference, own_reference, learner.device),
            torch.from_numpy(reference_valid).to(learner.device),
            batch,
        )
        learner.optimizer.zero_grad()
        terms["loss"].backward()
        norm = _gradient_norm(learner.objective)
        if not torch.isfinite(norm):
            raise InputError(
                f"the loss is no longer finite in round {learner.rounds_done}; lower mstep.learning_rate "
                "(the last round's checkpoint is kept)"
            )
        nn.utils.clip_grad_value_(learner.objective.parameters(), clip_value)
        learner.optimizer.step()
        learner.scheduler.step()
        pairs += int((batch.of_query >= 0).sum())
    scalars = {f"loss/{key}": _whole(key, value) for key, value in terms.items()}
    temperature = float((-learner.objective.log_scale.detach()).exp())
    return {
        **scalars,
        "mstep/gradient_norm": float(norm),
        "mstep/temperature": temperature,
        "mstep/pairs": pairs,
    }


def _whole(key: str, value: torch.Tensor) -> float:
    """A loss term over all workers; "loss" carries the factor that cancels DDP's averaging."""
    summed = collective.total(value.detach())
    return float(summed) / (collective.world_size() if key == "loss" else 1)


def _gradient_norm(module: nn.Module) -> torch.Tensor:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
