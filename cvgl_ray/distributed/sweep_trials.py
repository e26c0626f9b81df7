"""The trials of a sweep: Ray Tune decides which go on, each is a Ray Train run that reports every round."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray.train
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.util.queue import Empty, Queue

from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.checkpoints import last_state
from cvgl_ray.distributed.sweep_journal import ROUNDS, SCORE, Journal, Record, read_journal
from cvgl_ray.distributed.sweep_pbt import Population
from cvgl_ray.distributed.train import fit_on_workers
from cvgl_ray.distributed.training_data import TrainingData
from cvgl_ray.em.selection import CHOICE
from cvgl_ray.sweep_candidates import Candidate, trial_name, vary
from cvgl_ray.sweep_config import Sweep, Tune
from cvgl_ray.sweep_population import in_force

JOURNAL = "trials.jsonl"


def run_trials(
    sweep: Sweep, found: Mapping[int, Candidate], data: Mapping[int, TrainingData], output: Path
) -> dict[int, Record]:
    """Run the candidates whose trials have not ended, and failed ones once more; the records of all.

    data: by candidate, the features that it learns from.
    """
    journal = Journal(output / JOURNAL, {n: c.config.mstep.rounds for n, c in found.items()})
    found = in_force(sweep, found, {n: record.values for n, record in journal.records.items()})
    left = [n for n in found if n not in journal.records or journal.records[n].ended in (None, "failed")]
    if not left:
        return journal.records
    concurrent, threads = _room(sweep)
    population = sweep.tune.scheduler == "pbt"
    _quiet()
    trial = tune.with_parameters(
        _trial,
        base=sweep.base,
        configs={n: found[n].config for n in left},
        data={n: data[n] for n in left},
        output=output.resolve(),
        threads=threads,
        interval=sweep.tune.interval_rounds if population else 0,
    )
    tune.Tuner(
        # Its workers reserve their own CPUs. Ray wants some resource of a trial, and a byte of memory is one.
        tune.with_resources(trial, {"memory": 1}),
        param_space={"number": tune.grid_search(left)},
        tune_config=tune.TuneConfig(
            scheduler=Population(sweep, found, journal, concurrent, output / "trials")
            if population
            else scheduler(sweep.tune, journal),
            max_concurrent_trials=None if population else concurrent,  # all of a population take part at once
            trial_name_creator=lambda trial: trial_name(trial.config["number"]),
            trial_dirname_creator=lambda trial: trial_name(trial.config["number"]),
            reuse_actors=population,
        ),
        run_config=tune.RunConfig(
            storage_path=str(output.resolve()), name="tune", callbacks=[journal], verbose=0
        ),
    ).fit()
    records = read_journal(journal.path)
    assert all(records[number].ended for number in found)
    return records


def _quiet() -> None:
    """Leave the word to the journal: nothing of Ray Tune's own tables, loggers and interrupt handling."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its successor prints at any verbosity
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # an interrupted sweep must not go on to its choice


def _room(sweep: Sweep) -> tuple[int, int]:
    """Trials at a time, and torch threads of each worker, so that all workers together fill the cores."""
    workers = sweep.base.run.workers
    units = session.cluster_gpus() if sweep.base.run.gpu else session.cluster_cpus()
    most = max(1, units // workers)
    concurrent = min(most, sweep.tune.concurrency or most)
    return concurrent, max(1, session.cluster_cpus() // (concurrent * workers))


def scheduler(settings: Tune, journal: Journal) -> FIFOScheduler:
    """The configured scheduler, shown what trials that ended before a restart have reported."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    rounds = max(journal.rounds.values())
    asha = ASHAScheduler(
        time_attr=ROUNDS,
        metric=SCORE,
        mode="max",
        max_t=rounds,
        grace_period=min(settings.grace_rounds, rounds),
        reduction_factor=settings.reduction,
    )
    for number, record in journal.records.items():
        if record.ended in ("complete", "stopped"):
            past: Any = SimpleNamespace(trial_id=trial_name(number))
            asha.on_trial_add(None, past)  # type: ignore[arg-type]  # it asks nothing of its controller
            for done, scalars in sorted(record.reports.items()):
                asha.on_trial_result(None, past, {ROUNDS: done, SCORE: scalars[SCORE]})  # type: ignore[arg-type]
    return asha


class _Forward(ray.train.UserCallback):
    """Hands each round's report to the trial; runs in Ray Train's controller, which waits if it lags."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        scalars = {name: value for name, value in metrics[0].items() if name != "histograms"}
        self.queue.put({**scalars, ROUNDS: scalars["round"] + 1})


def _trial(
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
    if state is not None and (
        done >= rounds or unheard
    ):  # its driver died, and the next one asks for this round
        _report({ROUNDS: done, SCORE: state["best"]["scores"][CHOICE]}, folder, interval)
    while done < rounds:
        done = min(rounds, (done // interval + 1) * interval) if interval else rounds
        fit = partial(
            fit_on_workers,
            data[number],
            config,
            str(folder.parent),
            folder.name,
            output / "tensorboard" / trial_name(number),
            threads,
            staging=folder / "staging",
            state=state,
            until=done,
        )
        for report in _reports(fit, done):
            _report(report, folder, interval)
        state = last_state(folder)


def _reports(fit: Callable[..., Any], last: int) -> Iterator[dict[str, Any]]:
    """The rounds' reports of a Ray Train run as they come; after its end that of the last round.

    So a trial that is paused at its last round leaves no run behind.
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
