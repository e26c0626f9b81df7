"""The trials of a sweep: Ray Tune starts them, ASHA stops those that lag behind, the journal knows of all."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.rows import TrainingData
from cvgl_ray.distributed.trial import ROUNDS, trial, trial_on_workers
from cvgl_ray.errors import InputError, chain
from cvgl_ray.tuning.candidates import Candidate, trial_name
from cvgl_ray.tuning.config import Sweep, Tune
from cvgl_ray.tuning.journal import SCORE, Journal, Record

log = logging.getLogger(__name__)

JOURNAL = "trials.jsonl"


def run_trials(
    sweep: Sweep, found: Mapping[int, Candidate], data: Mapping[int, TrainingData], output: Path
) -> dict[int, Record]:
    """Run the candidates whose trials have not ended, and failed ones once more; the records of all.

    data: by candidate, the features that it learns from. A trial whose process dies is begun again, up to
    run.max_failures times.
    """
    journal = Journal(output / JOURNAL, {n: c.config.mstep.rounds for n, c in found.items()})
    for record in journal.records.values():
        record.ended = None if record.ended == "failed" else record.ended
    for _ in range(1 + sweep.base.run.max_failures):
        left = [n for n in found if n not in journal.records or journal.records[n].ended is None]
        if left:
            _tune(sweep, {n: found[n].config for n in left}, data, journal, output)
    for number in found:
        if number not in journal.records or journal.records[number].ended is None:
            journal.end(number, f"its process died {1 + sweep.base.run.max_failures} times")
    return {number: journal.records[number] for number in found}


def _tune(
    sweep: Sweep,
    configs: dict[int, Config],
    data: Mapping[int, TrainingData],
    journal: Journal,
    output: Path,
) -> None:
    """One run of Ray Tune over these candidates; it leaves what came of them in the journal."""
    concurrent, threads = _room(sweep)
    _quiet()
    trainable = tune.with_parameters(
        trial if sweep.base.run.workers == 1 else trial_on_workers,
        configs=configs,
        data={number: data[number] for number in configs},
        output=output.resolve(),
        threads=threads,
    )
    # The workers of a Ray Train run reserve for themselves; Ray wants some resource, as a byte of memory.
    one = {"CPU": 1.0, "GPU": 1.0} if sweep.base.run.gpu else {"CPU": 1.0}
    tune.Tuner(
        tune.with_resources(trainable, one if sweep.base.run.workers == 1 else {"memory": 1.0}),
        param_space={"number": tune.grid_search(list(configs))},
        tune_config=tune.TuneConfig(
            scheduler=scheduler(sweep, journal),
            max_concurrent_trials=concurrent,
            trial_name_creator=lambda trial: trial_name(trial.config["number"]),
            trial_dirname_creator=lambda trial: trial_name(trial.config["number"]),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(output.resolve()), name="tune", callbacks=[_Noted(journal)], verbose=0
        ),
    ).fit()


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


class _Noted(tune.Callback):
    """Writes into the journal what Ray Tune's driver learns of its trials."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.journal.report(trial.config["number"], result[ROUNDS], result, result["time_total_s"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has done all its rounds, or the scheduler has stopped it."""
        self.journal.end(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed; one whose process died has not ended, and is begun again."""
        path = trial.pickled_error_file  # `get_pickled_error` looks where Ray brings it only later
        error = cloudpickle.loads(Path(path).read_bytes()) if path else None
        causes = list(chain(error)) if error else []
        if any(isinstance(cause, RayActorError) for cause in causes):
            log.warning("the process of trial %03d died; it is begun again", trial.config["number"])
            log.debug("%s", error)
            return
        last = (str(causes[-1]) if causes else "").strip().splitlines() or ["unknown"]
        told = next((str(cause) for cause in causes if isinstance(cause, InputError)), last[-1])
        self.journal.end(trial.config["number"], told)


class Asha(ASHAScheduler):
    """Ray's scheduler, which can be shown what trials that ended before a restart have reported."""

    def __init__(self, settings: Tune, rounds: int) -> None:
        super().__init__(
            time_attr=ROUNDS,
            metric=SCORE,
            mode="max",
            max_t=rounds,
            grace_period=min(settings.grace_rounds, rounds),
            reduction_factor=settings.reduction,
        )

    def recall(self, records: Mapping[int, Record]) -> None:
        """Show it the trials that have ended."""
        for number, record in records.items():
            if record.ended in ("complete", "stopped"):
                past: Any = SimpleNamespace(trial_id=trial_name(number))
                self.on_trial_add(None, past)  # type: ignore[arg-type]  # it asks nothing of its controller
                for done, scalars in sorted(record.reports.items()):
                    result = {ROUNDS: done, SCORE: scalars[SCORE]}
                    self.on_trial_result(None, past, result)  # type: ignore[arg-type]


def scheduler(sweep: Sweep, journal: Journal) -> FIFOScheduler:
    """The configured scheduler, which knows of the trials that ended before a restart."""
    if sweep.tune.scheduler == "asha" and sweep.base.run.workers > 1:
        log.info("trials of several workers are told of when they are over: all go to their last round")
    if sweep.tune.scheduler == "none" or sweep.base.run.workers > 1:
        return FIFOScheduler()
    asha = Asha(sweep.tune, max(journal.rounds.values()))
    asha.recall(journal.records)
    return asha
