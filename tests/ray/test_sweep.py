"""A small sweep whose driver is killed and started again: shared features, a choice without labels."""

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from ray.tune.experiment import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import DRONE_IMAGES, PLACES, SMALL, configured

from cvgl_ray.bundle import load_bundle
from cvgl_ray.catalog import layouts
from cvgl_ray.distributed.data import load_features, training_tables
from cvgl_ray.distributed.sweep import sweep_stage
from cvgl_ray.distributed.sweep_journal import SCORE, Journal, Record, read_journal
from cvgl_ray.distributed.sweep_pbt import Population
from cvgl_ray.distributed.sweep_trials import scheduler
from cvgl_ray.distributed.training_data import in_canonical_order
from cvgl_ray.distributed.trial import ENDING
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.rounds import start
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import QUERY
from cvgl_ray.stages import train_stage
from cvgl_ray.tuning.candidates import candidates, trial_name, vary
from cvgl_ray.tuning.config import Tune, load_sweep

LIMIT_S = 200
SPACE = (
    "adapter.kind=attenuation",
    "tune.trials=4",
    "tune.scheduler=none",
    "tune.space.adapter.shrinkage={grid = [0.05, 1.0]}",
    "tune.space.pretransform.query.crops={grid = [[1.0], [0.8]]}",
)


def settings(places: Path, *more: str) -> tuple[str, ...]:
    return (f"dataset.root={places}", *SMALL, *SPACE, *more)


def kill_the_driver_when_a_trial_has_ended(places: Path, output: Path) -> str:
    """Start the sweep as a user does, kill it when a trial has ended; the journal's text then."""
    command = [sys.executable, "-m", "cvgl_ray", "tune", "--output", str(output)]
    command += ["--address", ray.get_runtime_context().gcs_address]
    command += [part for setting in settings(places) for part in ("--set", setting)]
    journal, log = output / "trials.jsonl", output / "driver.log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as driver:
        limit = time.monotonic() + LIMIT_S
        while not (journal.exists() and '"ended"' in journal.read_text()):
            if driver.poll() is not None or time.monotonic() > limit:
                driver.kill()
                pytest.fail(f"no trial ended:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        driver.kill()
    assert not (output / "bundle").exists()
    return journal.read_text()


@pytest.mark.timeout(600)
def test_a_sweep_goes_on_after_its_driver_died(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kill_the_driver_when_a_trial_has_ended(places, tmp_path)
    load_labels = layouts.load_labels
    chosen = []

    def load_labels_once_chosen(*arguments: object) -> object:
        chosen.append(load_bundle(tmp_path / "bundle"))
        assert (tmp_path / "trials.md").exists()
        return load_labels(*arguments)

    monkeypatch.setattr(layouts, "load_labels", load_labels_once_chosen)
    sweep = load_sweep(None, settings(places))
    report = sweep_stage(sweep, tmp_path)
    assert chosen
    assert report["adapted"]["satellite->drone"]["R@1"] > 50

    lines = (tmp_path / "trials.jsonl").read_text()
    assert lines.startswith(before)  # what had ended was not done again
    ends = Counter(line["trial"] for line in map(json.loads, lines.splitlines()) if "ended" in line)
    assert ends == {0: 1, 1: 1, 2: 1, 3: 1}
    records = read_journal(tmp_path / "trials.jsonl")
    assert {record.ended for record in records.values()} == {"complete"}
    assert load_bundle(tmp_path / "bundle").scores[SCORE.removeprefix("labels/")] == max(
        record.score for record in records.values()
    )

    # Two crops of the drone's images and one of the satellite's: no picture was extracted twice for a recipe.
    rows = sum(pq.read_table(part).num_rows for part in (tmp_path / "features").rglob("part-*.parquet"))
    assert rows == 2 * DRONE_IMAGES * PLACES + PLACES

    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "trials.csv").read_text().count("\n") == 5
    assert "Spearman" in (tmp_path / "labels_table.md").read_text()
    for number in range(4):
        events = EventAccumulator(str(tmp_path / f"tensorboard/trial-{number:03d}")).Reload()
        assert SCORE in events.Tags()["scalars"]
        assert "_hparams_/session_start_info" in events.summary_metadata

    assert not (tmp_path / "trials").exists()  # the checkpoints

    bundle = (tmp_path / "bundle/adapter.safetensors").stat().st_mtime_ns
    assert sweep_stage(sweep, tmp_path) == report
    assert (tmp_path / "bundle/adapter.safetensors").stat().st_mtime_ns == bundle
    with pytest.raises(InputError, match=r"tune\.seed was 0, now 1"):
        sweep_stage(load_sweep(None, settings(places, "tune.seed=1")), tmp_path)
    with pytest.raises(InputError, match=r"tune\.trials was 4, now None"):
        train_stage(configured(places, "adapter.kind=attenuation"), tmp_path)


def write_features(root: Path) -> tuple[str, ...]:
    """Two views of 60 places, hard enough that values of the adapter matter; settings that read them."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 32))
    ids, views, features = [], [], []
    for view in ("drone", "satellite"):
        (root / view).mkdir(parents=True)
        seen = truth + rng.normal(size=32) + rng.normal(size=truth.shape)
        for number, feature in enumerate(seen.astype(np.float16)):
            (root / view / f"{number}.png").touch()
            ids.append(f"{view}/{number}.png")
            views.append(view)
            features.append(feature)
    pq.write_table(pa.table({"image_id": ids, "view": views, "feature": features}), root / "table.parquet")
    return ("dataset.layout=folders", f"dataset.root={root}", f"features.table={root / 'table.parquet'}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("trials", [2, pytest.param(4, marks=pytest.mark.slow)])  # of which two run at a time
def test_a_trial_of_a_population_takes_over_the_state_of_a_better_one(tmp_path: Path, trials: int) -> None:
    overrides = (
        *write_features(tmp_path / "data"),
        "mstep.rounds=2",
        "tune.scheduler=pbt",
        f"tune.trials={trials}",
        "tune.seed=1",
        "tune.space.adapter.shrinkage={loguniform=[0.01, 1.0]}",
        "tune.space.estep.neighbours={choice=[2, 5, 10]}",
    )
    sweep, output = load_sweep(None, overrides), tmp_path / "out"
    sweep_stage(sweep, output)
    lines = [json.loads(line) for line in (output / "trials.jsonl").read_text().splitlines()]
    scores = {(line["trial"], line["rounds"]): line["scalars"][SCORE] for line in lines if "scalars" in line}
    assert scores.keys() == {(trial, rounds) for trial in range(trials) for rounds in (1, 2)}
    [takeover] = [line for line in lines if "source" in line]
    trial, source, values = takeover["trial"], takeover["source"], takeover["values"]
    first = [scores[number, 1] for number in range(trials)]
    assert (takeover["rounds"], first[trial], first[source]) == (1, min(first), max(first))

    # What the trial came to is what its source's state and the new values come to without Ray.
    then = candidates(sweep)[source].config
    now = vary(sweep.base, values)
    tables = training_tables(load_features(now, tmp_path, ""), now)
    rows = [in_canonical_order(table).features for table in tables]
    halves = [HalfModels(*rows, config) for config in (then, now)]
    learners = [start(*rows, config, judge.judge) for config, judge in zip((then, now), halves, strict=True)]
    (taken, rounds), (learner, further) = learners
    assert next(rounds).scalars[SCORE] == pytest.approx(first[source])
    learner.load_state_dict(taken.state_dict())
    halves[1].load_state_dict(halves[0].state_dict())
    assert next(further).scalars[SCORE] == pytest.approx(scores[trial, 2])

    # The seed is one of those where that trial is the best in the end.
    bundle = load_bundle(output / "bundle")
    assert (bundle.config.adapter, bundle.config.estep) == (now.adapter, now.estep)
    query = torch.from_numpy(rows[0].astype(np.float32))
    torch.testing.assert_close(bundle.adapter(query, QUERY), learner.adapter(query, QUERY), rtol=0, atol=1e-4)
    with (output / "trials.csv").open() as file:
        [chosen] = [row for row in csv.DictReader(file) if row["chosen"] == "True"]
    assert chosen["trial"] == f"trial-{trial:03d}"
    assert {key: float(chosen[key]) for key in values} == values


def test_a_journal_that_was_cut_off_is_mended_and_another_file_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    whole = json.dumps({"trial": 0, "rounds": 1, "scalars": {SCORE: 0.5}}) + "\n"
    path.write_text(whole + '{"trial": 0, "ended": "comp')
    records = Journal(path, {0: 1}).records
    assert (records[0].rounds, records[0].score, records[0].ended) == (1, 0.5, None)
    assert path.read_text() == whole
    path.write_text("trials\n")
    with pytest.raises(InputError, match="line 1 is no report"):
        read_journal(path)


def test_a_trial_is_judged_by_the_round_that_is_kept() -> None:
    for scores, kept in (([0.5, 0.8, 0.79], 0.79), ([0.5, 0.8, 0.6], 0.8)):
        assert Record({number: {SCORE: score} for number, score in enumerate(scores, 1)}).score == kept


def test_a_takeover_brings_the_reports_of_its_source(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl", dict.fromkeys(range(2), 3))
    for number, score in ((0, 0.2), (1, 0.6)):
        trial = SimpleNamespace(config={"number": number})
        journal.on_trial_result(0, [], trial, {"rounds_done": 1, SCORE: score, "time_total_s": 1.0})
    journal.take_over(0, 1, {"adapter.shrinkage": 0.3})
    for record in (journal.records[0], read_journal(journal.path)[0]):
        assert (record.rounds, record.score, record.taken_at) == (1, 0.6, 1)
        assert record.values == {"adapter.shrinkage": 0.3}


def test_the_scheduler_remembers_trials_of_before_a_restart(tmp_path: Path) -> None:
    settings = Tune(grace_rounds=1, reduction=2, space={"adapter.rank": {"choice": [8]}})
    journal = Journal(tmp_path / "trials.jsonl", dict.fromkeys(range(4), 8))
    new: Any = SimpleNamespace(trial_id="new", config={"number": 1})
    (tmp_path / trial_name(1)).mkdir()
    for past, lags in ((0.4, False), (0.9, True)):  # the bar is what has been seen
        journal.records[0] = Record({1: {SCORE: past}}, ended="stopped")
        asha = scheduler(settings, journal, tmp_path)
        asha.on_trial_add(None, new)
        assert asha.on_trial_result(None, new, {"rounds_done": 1, SCORE: 0.5}) == "CONTINUE"
        assert (tmp_path / trial_name(1) / ENDING).exists() == lags  # it is asked, not killed


def test_a_population_does_not_wait_for_a_trial_that_failed(tmp_path: Path) -> None:
    sweep = load_sweep(
        None, ("tune.scheduler=pbt", "tune.trials=3", "tune.space.adapter.shrinkage={uniform=[0.1, 0.9]}")
    )
    found = {candidate.number: candidate for candidate in candidates(sweep)}
    journal = Journal(tmp_path / "trials.jsonl", dict.fromkeys(found, 3))
    population = Population(sweep, found, journal, 2, tmp_path)
    trials = [Trial("", stub=True, config={"number": number}) for number in found]
    controller = SimpleNamespace(
        search_alg=None, get_trials=lambda: trials, get_live_trials=lambda: set(trials)
    )
    for trial in trials:
        population.on_trial_add(controller, trial)
    for trial in trials[:2]:
        assert population.choose_trial_to_run(controller) is trial
        trial.set_status(Trial.RUNNING)
        trial.update_last_result({"rounds_done": 1, SCORE: 0.5, "time_total_s": 1.0})
        assert population.on_trial_result(controller, trial, trial.last_result) == "PAUSE"
        trial.set_status(Trial.PAUSED)
    assert population.choose_trial_to_run(controller) is trials[2]
    trials[2].set_status(Trial.RUNNING)
    assert population.choose_trial_to_run(controller) is None
    trials[2].set_status(Trial.ERROR)
    assert population.choose_trial_to_run(controller) in trials[:2]
