"""A small sweep whose driver is killed and started again: shared features, a choice without labels."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import DRONE_IMAGES, SMALL, configured, write_places

from cvgl_ray.bundle import load_bundle
from cvgl_ray.catalog import layouts
from cvgl_ray.distributed.data import load_features, training_tables
from cvgl_ray.distributed.rows import share
from cvgl_ray.distributed.trials import run_trials, scheduler
from cvgl_ray.distributed.tune import sweep_stage
from cvgl_ray.em.fit import fit
from cvgl_ray.errors import InputError
from cvgl_ray.features.canonical import canonical_order
from cvgl_ray.features.table import FeatureTable
from cvgl_ray.features.views import QUERY
from cvgl_ray.stages import train_stage
from cvgl_ray.tuning.candidates import candidates
from cvgl_ray.tuning.config import load_sweep
from cvgl_ray.tuning.journal import SCORE, Journal, Record, read_journal

LIMIT_S = 200
PLACES = 20  # with fewer there is no score to choose by
SPACE = (
    "adapter.kind=attenuation",
    "tune.trials=4",
    "tune.scheduler=none",
    "tune.space.adapter.shrinkage={grid = [0.05, 1.0]}",
    "tune.space.pretransform.query.crops={grid = [[1.0], [0.8]]}",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"), [f"{number:04d}" for number in range(PLACES)])


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
    with pytest.raises(InputError, match="was made by `cvgl-ray tune`"):
        train_stage(configured(places, "adapter.kind=attenuation"), tmp_path)


def test_a_sweep_that_is_to_align_is_refused(places: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a sweep tries vectors alone; set alignment\.use = \"auto\""):
        sweep_stage(load_sweep(None, settings(places, "alignment.use=yes")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_scheduler_remembers_trials_of_before_a_restart(tmp_path: Path) -> None:
    space = "tune.space.adapter.rank={choice=[8]}"
    sweep = load_sweep(None, ("tune.grace_rounds=1", "tune.reduction=2", "mstep.rounds=8", space))
    journal = Journal(tmp_path / "trials.jsonl", dict.fromkeys(range(4), 8))
    new: Any = SimpleNamespace(trial_id="new", config={"number": 1})
    for past, decision in ((0.4, "CONTINUE"), (0.9, "STOP")):  # the bar is what has been seen
        journal.records[0] = Record({1: {SCORE: past}}, ended="stopped")
        asha = scheduler(sweep, journal)
        asha.on_trial_add(None, new)
        assert asha.on_trial_result(None, new, {"rounds_done": 1, SCORE: 0.5}) == decision


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


@pytest.mark.timeout(300)
def test_trials_are_trainings_in_process_and_those_that_lag_behind_are_stopped(tmp_path: Path) -> None:
    overrides = (
        *write_features(tmp_path / "data"),
        "mstep.rounds=4",
        "tune.trials=8",
        "tune.reduction=2",
        "tune.space.adapter.shrinkage={loguniform=[0.01, 1.0]}",
        "tune.space.adapter.rank={choice=[1, 16]}",
    )
    sweep, output = load_sweep(None, overrides), tmp_path / "out"
    sweep_stage(sweep, output)
    records = read_journal(output / "trials.jsonl")
    ended = Counter(record.ended for record in records.values())
    assert ended["stopped"] >= 2
    assert ended["complete"] >= 1
    assert sum(ended.values()) == 8
    assert all((record.rounds == 4) == (record.ended == "complete") for record in records.values())

    # What a trial came to is what the same training comes to without Ray.
    chosen = load_bundle(output / "bundle")
    tables = training_tables(load_features(chosen.config, tmp_path, ""), chosen.config.dataset)
    query, reference = (table.rows(canonical_order(table)) for table in tables)
    learner, rounds = fit(query, reference, chosen.config.learning)
    best = next(record for record in records.values() if record.score == chosen.scores["score"])
    assert [done.scalars[SCORE] for done in rounds] == [
        pytest.approx(scalars[SCORE]) for _, scalars in sorted(best.reports.items())
    ]
    rows = torch.from_numpy(query.astype(np.float32))
    torch.testing.assert_close(chosen.adapter(rows, QUERY), learner.adapter(rows, QUERY), rtol=0, atol=1e-4)


@pytest.mark.timeout(300)
def test_a_trial_whose_process_dies_is_begun_again_and_bad_input_is_not(tmp_path: Path) -> None:
    settings = write_features(tmp_path / "data")
    overrides = (
        *settings,
        "mstep.rounds=2",
        "tune.scheduler=none",
        "tune.trials=3",
        "tune.space.estep.rows={grid=[0, 30, 20]}",
        "estep.neighbourhood=0",
    )
    sweep = load_sweep(None, overrides)
    found = {candidate.number: candidate for candidate in candidates(sweep)}
    tables = training_tables(load_features(sweep.base, tmp_path, ""), sweep.base.dataset)
    data = share(*tables)
    nothing = np.full((len(tables[1]), tables[1].dimension), np.nan, np.float16)
    broken = share(tables[0], FeatureTable(list(tables[1].image_ids), nothing))
    (tmp_path / "trials").mkdir()
    blocker = threading.Thread(target=kill_the_first_trial)
    blocker.start()
    records = run_trials(sweep, found, {0: data, 1: data, 2: broken}, tmp_path)
    blocker.join()
    assert [records[number].ended for number in range(3)] == ["complete", "complete", "failed"]
    assert "not finite" in records[2].reason
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert Counter(line["trial"] for line in map(json.loads, lines) if "ended" in line) == {0: 1, 1: 1, 2: 1}


def kill_the_first_trial() -> None:
    """The processes of Ray Tune's trials are killed as soon as one is there."""
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if command.startswith(b"ray::ImplicitFunc") and descends(int(folder.name), os.getpid()):
                    os.kill(int(folder.name), signal.SIGKILL)
                    return
        time.sleep(0.02)


def descends(process: int, ancestor: int) -> bool:
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        if process == ancestor:
            return True
    return False
