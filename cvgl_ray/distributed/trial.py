"""One trial of a sweep, in the process that Ray Tune starts for it: Ray Train runs, each round reported."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray import tune
from ray.util.queue import Empty, Queue

from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.checkpoints import keep_newest, last_state
from cvgl_ray.distributed.sweep_journal import ROUNDS, SCORE
from cvgl_ray.distributed.train import fit_on_workers
from cvgl_ray.distributed.training_data import TrainingData
from cvgl_ray.em.judge import CHOICE
from cvgl_ray.tuning.candidates import trial_name, vary

ENDING = "end"  # a file beside a trial's checkpoints: it has lagged behind and is to end after its round


def run_trial(
    settings: dict[str, Any],
    *,
    base: Config,
    configs: dict[int, Config],
    data: dict[int, TrainingData],
    output: Path,
    threads: int,
    interval: int,
) -> None:
    """One trial, or what Ray Tune lets it do of one; started again, it goes on from its checkpoint.

    settings: the candidate's number, and of a population's the values in force and the folder of its state;
    interval: rounds after which a population's trial may be paused, 0 for another scheduler's.
    """
    session.connect()
    number = settings["number"]
    folder = output / "trials" / settings.get("folder", trial_name(number))
    config = vary(base, settings["values"]) if "values" in settings else configs[number]
    rounds = config.mstep.rounds
    state = last_state(folder)
    done = 0 if state is None else state["rounds_done"]
    unheard = interval > 0 and done % interval == 0 and tune.get_checkpoint() is None
    if state is not None and (done >= rounds or unheard):  # its driver died, and the next one has to know
        _report({ROUNDS: done, SCORE: state["best"]["scores"][CHOICE]}, folder, interval)
    while done < rounds:
        keep_newest(folder)
        done = min(rounds, (done // interval + 1) * interval) if interval else rounds
        fit = partial(
            fit_on_workers,
            data[number],
            config,
            str(folder.parent),
            folder.name,
            output / "tensorboard" / trial_name(number),
            threads=threads,
            staging=folder / "staging",
            state=state,
            until=done,
            ending=folder / ENDING,
        )
        for report in _reports(fit, done):
            _report(report, folder, interval)
        state = last_state(folder)


def _reports(fit: Callable[..., Any], last: int) -> Iterator[dict[str, Any]]:
    """The rounds' reports of a Ray Train run as they come; after its end that of the last round.

    So a trial that is paused or stopped at its last round leaves no run behind.
    """
    queue = Queue(maxsize=1, actor_options={"num_cpus": 0})
    outcome: Future[ray.train.Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(fit(callbacks=[_Forward(queue)]))
        except Exception as error:
            outcome.set_exception(error)

    # The caller's thread alone reports. Ray's TuneReportCallback reports from another one, which waits for
    # ever where the trial returns while a report is on its way.
    threading.Thread(target=run, daemon=True).start()
    held = None
    while not (outcome.done() and queue.empty()):
        with suppress(Empty):
            held = queue.get(timeout=0.2)
            if held[ROUNDS] < last:
                yield held
    outcome.result()
    if held and held[ROUNDS] == last:
        yield held


def _report(report: dict[str, Any], folder: Path, interval: int) -> None:
    """Tell Ray Tune of a round, with a checkpoint where it may pause the trial: Ray's scheduler wants one.

    It is empty. The state lies in `folder`, where the next start looks for it.
    """
    checkpoint = None
    if interval and report[ROUNDS] % interval == 0:
        token = folder / "paused"
        token.mkdir(exist_ok=True)
        checkpoint = tune.Checkpoint.from_directory(str(token))
    tune.report(report, checkpoint=checkpoint)


class _Forward(ray.train.UserCallback):
    """Hands each round's report to the trial; runs in Ray Train's controller, which waits if it lags."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        scalars = {name: value for name, value in metrics[0].items() if name != "histograms"}
        self.queue.put({**scalars, ROUNDS: scalars["round"] + 1})
