"""Processes of a training are killed; what comes out is bit for bit what comes out undisturbed."""

import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from processes import awaited, checkpoints, named
from ray.util.placement_group import placement_group_table
from tables import assert_same, on_ray, two_views, undisturbed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed import watch
from cvgl_ray.distributed.asking import TRIES
from cvgl_ray.distributed.index import RESTARTS
from cvgl_ray.errors import GaveUpError, InputError

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(600)]

QUIET_S = 3.0  # longer than a round: no checkpoint in such a time means that the workers wait
TRAINING = ("TrainController", "TrainWorker", "IndexActor")


def configured(kind: str, rounds: int, *more: str) -> Config:
    steps: tuple[str, ...] = ()
    if kind == "linear":  # rounds that are mostly M-step
        steps = (
            "run.agreement=false",
            "mstep.steps_per_round=40",
            "mstep.batch_size=32",
            "estep.neighbourhood=0",
        )
    return load_config(None, (f"adapter.kind={kind}", f"mstep.rounds={rounds}", *steps, *more))


def disturbed(config: Config, output: Path, fault: Callable[[Path], None]) -> dict[str, Any]:
    """The state after a training during which `fault` happened."""
    with ThreadPoolExecutor(1) as pool:
        culprit = pool.submit(fault, output)
        state = on_ray(two_views(), config, output)
        culprit.result(timeout=1)
    return state


def some_rounds(output: Path, count: int = 2) -> None:
    """Wait for so many more rounds."""
    before, seen = set(checkpoints(output)), set()

    def enough() -> bool:
        seen.update(checkpoints(output))
        return len(seen - before) >= count

    awaited(enough, f"{count} rounds")


def stop_in_an_e_step(output: Path) -> tuple[int, list[int]]:
    """Halt the actor and wait until the workers wait for it; their process ids."""
    some_rounds(output)
    [actor, *_], workers = named("IndexActor"), named("TrainWorker")
    os.kill(actor, signal.SIGSTOP)
    last, since = checkpoints(output), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        if checkpoints(output) != last:
            last, since = checkpoints(output), time.monotonic()
        time.sleep(0.02)
    return actor, workers


def worker_in_an_e_step(output: Path) -> None:
    """With a worker its share of the embeddings is lost, and what it was asked to search."""
    actor, workers = stop_in_an_e_step(output)
    os.kill(workers[-1], signal.SIGKILL)
    os.kill(actor, signal.SIGCONT)


def index_actor(output: Path) -> None:
    actor, workers = stop_in_an_e_step(output)
    os.kill(actor, signal.SIGKILL)
    awaited(lambda: set(named("IndexActor")) - {actor}, "a new index actor")
    some_rounds(output)
    assert named("TrainWorker") == workers  # not lost with the actor: they handed their rows over again


def worker_in_an_m_step(output: Path) -> None:
    """Kill the worker late in a round; most of a linear round is its M-step (asserted on the logs)."""
    some_rounds(output)
    times = []
    for _ in range(2):
        last = checkpoints(output)[-1]
        awaited(lambda last=last: checkpoints(output)[-1] != last, "the next round")
        times.append(time.monotonic())
    [worker] = named("TrainWorker")
    time.sleep(0.7 * (times[1] - times[0]))
    os.kill(worker, signal.SIGKILL)


def test_a_linear_training_survives_each_loss_bit_for_bit(tmp_path: Path) -> None:
    def faults(output: Path) -> None:
        worker_in_an_m_step(output)
        worker_in_an_e_step(output)
        index_actor(output)

    config = configured("linear", 18)
    assert_same(disturbed(config, tmp_path, faults), undisturbed(two_views(), config)[0].state_dict())
    scalars = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    e_steps, m_steps = (
        [event.value for event in scalars.Scalars(f"time/{name}_s")] for name in ("e_step", "m_step")
    )
    assert np.median(m_steps) > np.median(e_steps)
    assert max(e_steps) > QUIET_S  # the one in which the index actor was lost
    assert [event.step for event in scalars.Scalars("loss/loss")] == list(range(18))  # each logged once


@pytest.mark.parametrize("fault", [worker_in_an_e_step, index_actor])
def test_an_attenuation_survives_a_loss_bit_for_bit(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    config = configured("attenuation", 18)
    assert_same(disturbed(config, tmp_path, fault), undisturbed(two_views(), config)[0].state_dict())


def test_a_training_of_two_shards_survives_each_loss(tmp_path: Path) -> None:
    def faults(output: Path) -> None:
        worker_in_an_e_step(output)
        index_actor(output)

    config = configured("attenuation", 24, "run.workers=2")
    state = disturbed(config, tmp_path / "disturbed", faults)
    assert_same(state, on_ray(two_views(), config, tmp_path / "quiet"))
    one_process = undisturbed(two_views(), config)[0].state_dict()
    torch.testing.assert_close(state["labels"], one_process["labels"], rtol=0, atol=1e-4)


def test_a_soak_with_random_kills_ends_and_leaks_nothing(tmp_path: Path) -> None:
    rounds, kills = 300, 8
    rng, stop = random.Random(rounds), threading.Event()
    memory: dict[int, list[int]] = defaultdict(list)  # bytes, by process, five times a second

    def kill_at_random(output: Path) -> None:
        for _ in range(kills):
            some_rounds(output, rng.randint(1, rounds // (4 * kills)))
            victim = rng.choice(["TrainWorker", "IndexActor"])
            os.kill(awaited(lambda victim=victim: named(victim), victim)[0], signal.SIGKILL)

    def measure() -> None:
        while not stop.wait(0.2):
            for process in (os.getpid(), *(p for title in TRAINING for p in named(title))):
                memory[process].append(resident(process))

    config = configured("linear", rounds, f"run.max_failures={kills}", "mstep.steps_per_round=5")
    opened = len(os.listdir("/proc/self/fd"))
    sampler = threading.Thread(target=measure)
    sampler.start()
    try:
        state = disturbed(config, tmp_path, kill_at_random)
    finally:
        stop.set()
        sampler.join()
    assert state["rounds_done"] == rounds
    assert_same(state, undisturbed(two_views(), config)[0].state_dict())
    awaited(lambda: ray.available_resources().get("CPU") == 2, "all CPUs free again")
    awaited(lambda: not [p for title in (*TRAINING, "Cleaner") for p in named(title)], "no actor is left")
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert len(list((tmp_path / "train").iterdir())) == 1  # the last checkpoint
    assert len(os.listdir("/proc/self/fd")) < opened + 30
    for process, sizes in memory.items():
        if len(sizes) > 100:  # 20 s: long enough to tell a leak from a start
            quarter = len(sizes) // 4
            growth = np.median(sizes[-quarter:]) - np.median(sizes[quarter : 2 * quarter])
            print(f"process {process}: {sizes[-1] / 2**20:.0f} MiB, grown by {growth / 2**20:.1f}")
            assert growth < 40 * 2**20


def test_an_index_that_dies_of_the_same_cause_ends_the_training(tmp_path: Path) -> None:
    stop, killed = threading.Event(), set()

    def kill_whenever_it_matches() -> None:
        while not stop.wait(0.002):
            # Its title is that of the method which began last: workers wait in `next` while it matches.
            for process in named("IndexActor.match") + named("IndexActor.next"):
                os.kill(process, signal.SIGKILL)
                killed.add(process)

    killer = threading.Thread(target=kill_whenever_it_matches)
    killer.start()
    began = time.monotonic()
    try:
        # A match that takes a while. A round may slip through, since titles change with every call: then the
        # restarts can come to an end before the tries of one round do.
        ends = rf"gave up round \d+ after {TRIES} tries|died {RESTARTS + 1} times"
        with pytest.raises(GaveUpError, match=f"^the index ({ends}): .*too little memory"):
            on_ray(two_views(places=3000, dimension=256), configured("linear", 30), tmp_path)
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= TRIES
    assert time.monotonic() - began < 240
    awaited(lambda: ray.available_resources().get("CPU") == 2, "all CPUs free again")


def test_bad_input_in_a_worker_is_never_tried_again(tmp_path: Path) -> None:
    stop, workers = threading.Event(), set()

    def look() -> None:
        while not stop.wait(0.05):
            workers.update(named("TrainWorker"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with pytest.raises(InputError, match="no longer finite in round 0"):
            on_ray(two_views(), configured("linear", 3, "mstep.learning_rate=1e30"), tmp_path)
    finally:
        stop.set()
        looking.join()
    assert len(workers) == 1
    awaited(lambda: ray.available_resources().get("CPU") == 2, "all CPUs free again")


def test_it_is_said_what_a_training_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @ray.remote(num_cpus=2)
    def occupy() -> None:
        time.sleep(8)

    monkeypatch.setattr(watch, "SECONDS_PER_LINE", 1.0)
    others = occupy.remote()
    time.sleep(1)
    with caplog.at_level("INFO"):
        on_ray(two_views(), load_config(None, ("mstep.rounds=1", "run.agreement=false")), tmp_path)
    ray.get(others)
    said = [line for line in caplog.messages if line.startswith("training waits")]
    assert len(said) > 1
    assert said[0] == "training waits for 1 x (1 CPU): 0 CPUs are free now (2 CPUs and 0 GPUs on 1 node)"


def resident(process: int) -> int:
    """Resident memory in bytes, 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
