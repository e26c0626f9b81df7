"""Processes of a training that lays images on each other are killed; what comes out stays the same."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from processes import awaited, checkpoints, end, finish, named, start
from tiny import ALIGNED, SMALL, configured, write_turned

from cvgl_ray.bundle import load_bundle
from cvgl_ray.stages import train_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLACES = 120  # enough that actors score the pairs
ROUNDS = 6
SETTINGS = (*ALIGNED, f"mstep.rounds={ROUNDS}", "alignment.candidates=32", "estep.neighbourhood=0")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_turned(tmp_path_factory.mktemp("turned"), PLACES)


@pytest.fixture(scope="module")
def undisturbed(cluster: str, places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    output = tmp_path_factory.mktemp("undisturbed")
    train_stage(configured(places, *SETTINGS), output)
    return output


def killed_while(busy: str, victim: str) -> str:
    """Kill a process at a moment in which one of that title is at work; the victim's title."""
    awaited(lambda: named(busy), busy)
    os.kill(awaited(lambda: named(victim), victim)[0], signal.SIGKILL)
    return victim


def killings(output: Path) -> list[str]:
    """A scoring actor, then the worker, then the index, each in an E-step of another round."""
    killed = []
    for victim in ("_Scorer.score", "TrainWorker", "IndexActor"):
        before = set(checkpoints(output))
        killed.append(killed_while("_Scorer.score", victim))
        awaited(lambda before=before: set(checkpoints(output)) - before, "the next round")
    return killed


def assert_same_outcome(one: Path, other: Path) -> None:
    """Adapters, poses' prior, pairs and poses agree to the last bit, and there are enough to tell."""
    left, right = (load_bundle(folder / "bundle").alignment for folder in (one, other))
    assert left is not None
    assert right is not None
    assert left.learned.keys() == right.learned.keys()
    for name, value in left.learned.items():
        np.testing.assert_array_equal(value.numpy(), right.learned[name].numpy(), name)
    for name in ("adapter.safetensors", "bank.safetensors"):
        assert (one / "bundle" / name).read_bytes() == (other / "bundle" / name).read_bytes()
    for name in ("pseudo_labels.parquet", "poses.parquet"):
        tables = [pq.read_table(folder / "bundle" / name) for folder in (one, other)]
        assert tables[0].equals(tables[1])
        assert len(tables[0]) > 0.8 * PLACES
    assert (one / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()


def test_a_scoring_actor_a_worker_and_the_index_may_die(
    undisturbed: Path, places: Path, tmp_path: Path
) -> None:
    """Its cells are read from disk as they are compared; the undisturbed one held them in memory."""
    read = (f"features.cache={undisturbed / 'features'}", "alignment.memory_gib=0.000001")
    config = configured(places, *SETTINGS, *read)
    with ThreadPoolExecutor(1) as pool:
        culprit = pool.submit(killings, tmp_path)
        train_stage(config, tmp_path)
        assert culprit.result(timeout=1) == ["_Scorer.score", "TrainWorker", "IndexActor"]
    assert_same_outcome(undisturbed, tmp_path)


def test_a_run_killed_amid_its_rounds_goes_on(
    undisturbed: Path, cluster: str, places: Path, tmp_path: Path
) -> None:
    settings = (f"dataset.root={places}", *SMALL, *SETTINGS)
    command = ["train", "--output", str(tmp_path), *(p for s in settings for p in ("--set", s))]
    process = start(*command, address=cluster)
    try:
        awaited(lambda: checkpoints(tmp_path), "a round")
        awaited(lambda: named("_Scorer.score"), "the next round's pairs")
        process.kill()
        process.communicate()
        before = checkpoints(tmp_path)
        awaited(lambda: not named("TrainWorker"), "the end of its workers")
        process = start(*command, address=cluster)
        code, _, err = finish(process)
        assert code == 0, err
        assert len(before) < ROUNDS
    finally:
        end(process)
    assert_same_outcome(undisturbed, tmp_path)
