"""The EM loop of one worker: rounds of one E-step over all rows and a few M-steps on its pseudo-labels.

The same code runs in a single process and in every worker of a Ray training. Nothing here depends on the
number of workers: all random draws come from (seed, round) and describe the batch as a whole.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from cvgl_ray.config import EStep, Learning
from cvgl_ray.em import collective
from cvgl_ray.em.adapters import ViewCentred, embed, take
from cvgl_ray.em.asked import labels_of_asked
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.graphs import Graphs, view_graph
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import PseudoLabels, label, label_free_scores, scored
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import QUERY, REFERENCE, Rows, view_mean
from cvgl_ray.search.views import Search, local, within


@dataclass(frozen=True)
class RoundRows:
    """What a round is about: its global row ids, and which share of the matched queries keep their label."""

    query_rows: np.ndarray
    reference_rows: np.ndarray
    share: float = field(default=1.0, kw_only=True)


@dataclass(frozen=True)
class EStepRows(RoundRows):
    """What one worker hands to the matcher beside these: embeddings of its own share.

    query [n, W], reference [m, W] float32: the rank-th part of `numpy.array_split(rows, workers)`.
    """

    query: np.ndarray
    reference: np.ndarray


Matcher = Callable[[int, EStepRows], PseudoLabels]
Judge = Callable[[Learner], dict[str, float]]  # label-free scores of a model, "score" among them


@dataclass(frozen=True)
class Round:
    """What happened in a round: its pseudo-labels and its scalars, by TensorBoard's names."""

    number: int
    labels: PseudoLabels
    scalars: dict[str, float]


def local_matcher(estep: EStep, graphs: Graphs | None = None, device: str = "cpu") -> Matcher:
    """The matcher of a single process, which holds all rows itself and searches them on a device."""
    return lambda _round, rows: match_rows(rows.query, rows.reference, rows, estep, graphs, device)


def asked_matcher(estep: EStep, asked: np.ndarray, device: str = "cpu") -> Matcher:
    """The matcher of a single process that labels the queries asked and no others, exactly, on a device."""
    return lambda _round, rows: labels_of_asked(
        rows.query,
        rows.reference,
        asked,
        scores=estep.scores,
        neighbours=estep.neighbours,
        match=estep.match,
        threshold=estep.threshold,
        share=rows.share,
        device=device,
    )


def start(
    query: Rows,
    reference: Rows,
    learning: Learning,
    judge: Judge | None = None,
    *,
    asked: np.ndarray | None = None,
) -> tuple[Learner, Iterator[Round]]:
    """An untrained learner and its rounds, done in this process one by one as they are asked for.

    With learning.gpu they are done on this machine's GPU. query [Nq, D], reference [Nr, D]: frozen features
    of any float type; judge: see `run_rounds`; asked: ids of the only queries to be labelled, None for all.
    """
    centre = torch.from_numpy(np.stack([view_mean(query), view_mean(reference)]))
    learner = build_learner(learning, query.shape[1], centre, learning.device)
    if asked is None:
        matcher = own_matcher(learner, query, reference, learning.estep)
    else:
        matcher = asked_matcher(learning.estep, asked, learning.device)
    return learner, run_rounds(learner, query, reference, learning, matcher=matcher, judge=judge)


def own_matcher(learner: Learner, query: Rows, reference: Rows, estep: EStep) -> Matcher:
    """The matcher of a single process on its learner's device, with the graphs that the policy asks for.

    query [Nq, D], reference [Nr, D]: frozen features of any float type.
    """
    graphs = None
    if estep.neighbourhood:
        graphs = frozen_graphs(query, reference, learner.adapter, estep.index)
    return local_matcher(estep, graphs, learner.device.type)


def frozen_graphs(query: Rows, reference: Rows, adapter: ViewCentred, index: str = "auto") -> Graphs:
    """Each view's graph in the normalised frozen features [N, D] of any float type; index: see EStep."""
    graphs = []
    for features, view in ((query, QUERY), (reference, REFERENCE)):
        rows = normalised(features, view, slice(None), adapter)
        graphs.append(view_graph(rows, partial(within, factory=index, device=adapter.centre.device.type)))
    return graphs[0], graphs[1]


def normalised(features: Rows, view: int, part: slice, adapter: ViewCentred) -> np.ndarray:
    """Some of a view's frozen features [N, D], as the adapter normalises them: [n, D] float32."""
    some = take(features, np.arange(len(features))[part], adapter.centre.device)
    rows: np.ndarray = adapter.normalise(some, view).cpu().numpy()
    return rows


def match_rows(
    query: np.ndarray,
    reference: np.ndarray,
    rows: RoundRows,
    estep: EStep,
    graphs: Graphs | None,
    device: str = "cpu",
) -> PseudoLabels:
    """Pseudo-labels of all embeddings of a round, by the configured policy; see `match_by`."""
    return match_by(local(query, reference, estep.index, device), rows, estep, graphs)


def match_by(search: Search, rows: RoundRows, estep: EStep, graphs: Graphs | None) -> PseudoLabels:
    """Pseudo-labels of all rows of a round, by the configured policy.

    search: by cosines; graphs: of the frozen features (see `frozen_graphs`), for the neighbours' term.
    """
    return label(
        scored(
            search,
            scores=estep.scores,
            neighbours=estep.neighbours,
            neighbourhood=estep.neighbourhood,
            graphs=graphs,
        ),
        rows.query_rows,
        rows.reference_rows,
        match=estep.match,
        threshold=estep.threshold,
        share=rows.share,
    )


def run_rounds(
    learner: Learner,
    query: Rows,
    reference: Rows,
    learning: Learning,
    *,
    matcher: Matcher,
    judge: Judge | None = None,
) -> Iterator[Round]:
    """Do the rounds that are left, yielding each when it is done.

    query [Nq, D], reference [Nr, D]: frozen features of any float type, all rows, the same on every worker.
    judge: scores the model after each round and so chooses the one to keep (one worker's is enough).
    Raises InputError when the embeddings or the loss are not finite.
    """
    estep, rounds = learning.estep, learning.mstep.rounds
    while learner.rounds_done < rounds:
        number = learner.rounds_done
        rng = np.random.default_rng((learning.seed, number))
        started = time.perf_counter()
        kept = share_of_round(estep.first_share, number, rounds)
        rows = replace(embed_share(learner, query, reference, estep, rng), share=kept)
        _check_finite(rows, number)
        labels = matcher(number, rows)
        e_done = time.perf_counter()
        scalars = learner.m_step(labels, query, reference, rng)
        scalars |= {f"labels/{key}": v for key, v in label_free_scores(labels, learner.labels).items()}
        scalars["time/e_step_s"], scalars["time/m_step_s"] = e_done - started, time.perf_counter() - e_done
        learner.rounds_done, learner.labels = number + 1, labels
        learner.examples.append(labels.examples)
        if judge is not None:
            scores = judge(learner)
            learner.keep_best(scores)
            scalars |= {f"labels/{key}": value for key, value in scores.items()}
        yield Round(number, labels, scalars)


def share_of_round(first: float, number: int, rounds: int) -> float:
    """Share of the matched queries that keep their label: evenly from `first` to 1 in the last round."""
    return 1.0 if rounds == 1 else first + (1 - first) * number / (rounds - 1)


def draw_rows(count: int, wanted: int, rng: np.random.Generator, *, replace: bool) -> np.ndarray:
    """A random batch of `wanted` row ids out of `count`; without `replace` at most all rows, shuffled."""
    return rng.choice(count, size=wanted if replace else min(wanted, count), replace=replace)


def embed_share(
    learner: Learner, query: Rows, reference: Rows, estep: EStep, rng: np.random.Generator
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
    adapter = learner.adapter
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
