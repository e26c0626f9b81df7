"""Processes of a training are killed; what comes out is bit for bit what comes out undisturbed."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import awaited, checkpoints, named

from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed.checkpoints import last_state
from cvgl_ray.distributed.train import in_canonical_order, threads_per_worker, train
from cvgl_ray.em.loop import fit
from cvgl_ray.features.store import FeatureTable

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]

ROUNDS = 24
QUIET_S = 2.0  # longer than a round: no checkpoint in such a time means that the workers wait


def configured(kind: str, *more: str) -> Config:
    steps = () if kind == "attenuation" else ("mstep.steps_per_round=60", "mstep.batch_size=32")
    return load_config(None, (f"adapter.kind={kind}", f"mstep.rounds={ROUNDS}", *steps, *more))


@pytest.fixture(scope="module")
def tables() -> tuple[FeatureTable, FeatureTable]:
    """Two views of 120 places, the first with two images of each: the place's vector, its view's and noise."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((120, 48))

    def rows(images: int) -> np.ndarray:
        seen = np.repeat(places, images, axis=0) + rng.standard_normal(48)
        return (seen + rng.standard_normal(seen.shape)).astype(np.float16)

    query, reference = rows(2), rows(1)
    return (
        FeatureTable([f"q/{row}" for row in range(len(query))], query),
        FeatureTable([f"r/{row}" for row in range(len(reference))], reference),
    )


def undisturbed(tables: tuple[FeatureTable, FeatureTable], config: Config) -> dict[str, Any]:
    """The state after all rounds in this very process, without Ray."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_per_worker(config))
    try:
        query, reference = (in_canonical_order(table).features for table in tables)
        return fit(query, reference, config)[0].state_dict()
    finally:
        torch.set_num_threads(before)


def assert_same(one: Any, other: Any, path: str = "state") -> None:
    """Two trees of tensors and numbers agree to the last bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def disturbed(
    tables: tuple[FeatureTable, FeatureTable], config: Config, output: Path, fault: Callable[[Path], None]
) -> dict[str, Any]:
    """The state after a training during which `fault` happened."""
    with ThreadPoolExecutor(1) as pool:
        culprit = pool.submit(fault, output)
        train(*tables, config, {}, output)
        culprit.result(timeout=1)
    state = last_state(output / "train")
    assert state is not None
    return state


def some_rounds(output: Path, count: int = 2) -> None:
    seen: set[str] = set()

    def enough() -> bool:
        seen.update(checkpoints(output))
        return len(seen) >= count

    awaited(enough, f"{count} rounds")


def stop_in_an_e_step(output: Path) -> tuple[int, int]:
    """Halt the index actor and wait until the worker waits for it; both process ids (actor, worker)."""
    some_rounds(output)
    [actor], [worker] = named("IndexActor"), named("TrainWorker")
    os.kill(actor, signal.SIGSTOP)
    last, since = checkpoints(output), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        if checkpoints(output) != last:
            last, since = checkpoints(output), time.monotonic()
        time.sleep(0.02)
    return actor, worker


def worker_in_an_e_step(output: Path) -> None:
    actor, worker = stop_in_an_e_step(output)
    os.kill(worker, signal.SIGKILL)
    os.kill(actor, signal.SIGCONT)


def index_actor(output: Path) -> None:
    actor, worker = stop_in_an_e_step(output)
    os.kill(actor, signal.SIGKILL)
    awaited(lambda: set(named("IndexActor")) - {actor}, "a new index actor")
    assert named("TrainWorker") == [worker]  # it was not lost with the actor: it handed its rows over again


def worker_in_an_m_step(output: Path) -> None:
    some_rounds(output)
    last = checkpoints(output)[-1]
    awaited(lambda: checkpoints(output)[-1] != last, "the next round")
    [worker] = named("TrainWorker")
    time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("fault", [worker_in_an_e_step, worker_in_an_m_step, index_actor])
@pytest.mark.parametrize("kind", ["linear", "attenuation"])
def test_a_killed_process_changes_no_bit(
    tables: tuple[FeatureTable, FeatureTable], tmp_path: Path, fault: Callable[[Path], None], kind: str
) -> None:
    config = configured(kind)
    expected = undisturbed(tables, config)
    began = time.monotonic()
    state = disturbed(tables, config, tmp_path, fault)
    print(f"{kind} {fault.__name__}: {time.monotonic() - began:.1f} s")
    assert_same(state, expected)
