"""The trials of a sweep: Ray Tune decides which go on, what each does is in `trial`."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cvgl_ray.distributed import session
from cvgl_ray.distributed.sweep_journal import ROUNDS, SCORE, Journal, Record, read_journal
from cvgl_ray.distributed.sweep_pbt import Population
from cvgl_ray.distributed.training_data import TrainingData
from cvgl_ray.distributed.trial import ENDING, run_trial
from cvgl_ray.tuning.candidates import Candidate, trial_name
from cvgl_ray.tuning.config import Sweep, Tune
from cvgl_ray.tuning.population import in_force

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
        run_trial,
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
            else scheduler(sweep.tune, journal, output / "trials"),
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


class Asha(ASHAScheduler):
    """Ray's, but trials that lag behind end by themselves.

    Ray would kill them, and a Ray Train run that is killed at the wrong moment keeps its CPUs reserved for
    good (seen with Ray 2.60). states: folder of the trials' checkpoints.
    """

    def __init__(self, settings: Tune, rounds: int, states: Path) -> None:
        super().__init__(
            time_attr=ROUNDS,
            metric=SCORE,
            mode="max",
            max_t=rounds,
            grace_period=min(settings.grace_rounds, rounds),
            reduction_factor=settings.reduction,
        )
        self.rounds, self.states = rounds, states

    def recall(self, journal: Journal) -> None:
        """Show it what trials that ended before a restart have reported."""
        for number, record in journal.records.items():
            if record.ended in ("complete", "stopped"):
                past: Any = SimpleNamespace(trial_id=trial_name(number))
                self.on_trial_add(None, past)  # type: ignore[arg-type]  # it asks nothing of its controller
                for done, scalars in sorted(record.reports.items()):
                    result = {ROUNDS: done, SCORE: scalars[SCORE]}
                    super().on_trial_result(None, past, result)  # type: ignore[arg-type]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask a trial to end; one that has done all its rounds has no run any more and may be stopped."""
        ending = self.states / trial_name(trial.config["number"]) / ENDING
        if ending.exists():
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and result[ROUNDS] < self.rounds:
            ending.touch()
            return TrialScheduler.CONTINUE
        return decision


def scheduler(settings: Tune, journal: Journal, states: Path) -> FIFOScheduler:
    """The configured scheduler, shown what trials that ended before a restart have reported."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    asha = Asha(settings, max(journal.rounds.values()), states)
    asha.recall(journal)
    return asha
