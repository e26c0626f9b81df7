"""One trial of a sweep, in the process that Ray Tune keeps for it; that process does one after the other.

A trial of one worker is a training in this process, one of several workers a Ray Train run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from cvgl_ray.config import Config, Learning
from cvgl_ray.distributed import session
from cvgl_ray.distributed.resources import node_cores, use_threads
from cvgl_ray.distributed.rows import TrainingData
from cvgl_ray.distributed.train import fit_on_workers
from cvgl_ray.distributed.watch import RoundWriter
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.judge import CHOICE, HalfModels
from cvgl_ray.em.rounds import own_matcher, run_rounds
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import configuration_table, score_histograms
from cvgl_ray.storage.checkpoints import keep_newest, last_state, save_checkpoint
from cvgl_ray.tuning.candidates import trial_name
from cvgl_ray.tuning.journal import SCORE

ROUNDS = "rounds_done"  # of a report to Ray Tune, beside the round's scalars


def trial(
    settings: dict[str, Any],
    *,
    configs: dict[int, Config],
    data: dict[int, TrainingData],
    output: Path,
    threads: int,
) -> None:
    """A trial in this process; started again, it goes on from the last round that it kept.

    settings: the candidate's number. Ray Tune ends it within a report, where ASHA stops it.
    """
    number = settings["number"]
    use_threads(min(threads, node_cores()))
    name = trial_name(number)
    writer = RoundWriter(str(output / "tensorboard" / name), configuration_table(configs[number]))
    for scalars, histograms in _rounds(configs[number].learning, data[number], output / "trials" / name):
        writer.after_report(None, [{**scalars, "histograms": histograms}], None)
        tune.report({**scalars, ROUNDS: scalars["round"] + 1})


def _rounds(
    learning: Learning, data: TrainingData, folder: Path
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Scalars and histograms of the rounds that are left, each kept in the folder before it is told."""
    query, reference = ray.get(list(data.features))
    centre = torch.from_numpy(data.centre.copy())
    learner = build_learner(learning, query.shape[1], centre, learning.device)
    halves = HalfModels(query, reference, learning)
    state = last_state(folder)
    if state is not None:
        learner.load_state_dict(state)
        halves.load_state_dict(state["halves"])
        # Its driver may have died before it heard of this round.
        yield {"round": learner.rounds_done - 1, SCORE: state["best"]["scores"][CHOICE]}, {}
    matcher = own_matcher(learner, query, reference, learning.estep)
    for done in run_rounds(learner, query, reference, learning, matcher=matcher, judge=halves.judge):
        checkpoint = folder / "checkpoint_0"
        checkpoint.mkdir(parents=True, exist_ok=True)
        save_checkpoint({**learner.state_dict(), "halves": halves.state_dict()}, checkpoint)
        histograms: dict[str, Any] = {}
        with shown("a round's histograms"):
            histograms = score_histograms(done.labels)
        yield {"round": done.number, **done.scalars}, histograms


def trial_on_workers(
    settings: dict[str, Any],
    *,
    configs: dict[int, Config],
    data: dict[int, TrainingData],
    output: Path,
    threads: int,
) -> None:
    """A trial of several workers: a Ray Train run, told of when it is over."""
    session.connect()
    number = settings["number"]
    folder, config = output / "trials" / trial_name(number), configs[number]
    state = last_state(folder)
    if state is None or state["rounds_done"] < config.mstep.rounds:
        keep_newest(folder)
        logs = output / "tensorboard" / folder.name
        fit_on_workers(
            data[number],
            config,
            str(folder.parent),
            folder.name,
            logs,
            staging=folder / "staging",
            threads=threads,
            state=state,
        )
        state = last_state(folder)
    assert state is not None
    tune.report({ROUNDS: state["rounds_done"], SCORE: state["best"]["scores"][CHOICE]})
