"""The trials of a sweep: Ray Tune decides which go on, what each does is in `trial`."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from cvgl_ray.distributed import session
from cvgl_ray.distributed.sweep_journal import ROUNDS, SCORE, Journal, Record, read_journal
from cvgl_ray.distributed.sweep_pbt import Population
from cvgl_ray.distributed.training_data import TrainingData
from cvgl_ray.distributed.trial import run_trial
from cvgl_ray.sweep_candidates import Candidate, trial_name
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
