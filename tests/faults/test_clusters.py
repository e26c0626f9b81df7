"""Faults that need a cluster of their own kind: a node lost for good, and too small an object store."""

import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from processes import awaited, below, checkpoints, end, finish, named
from tables import assert_same, on_ray, two_views, undisturbed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import QUICK_RAY

from cvgl_ray.config import load_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("fault", ["lose_a_node", "crowd_the_object_store", "spread_over_nodes"])
def test_a_cluster_of_its_own(fault: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys, test_clusters; test_clusters.{fault}(sys.argv[1])",
            str(tmp_path),
        ],
        cwd=Path(__file__).parent,
        env=os.environ
        | QUICK_RAY
        | {"PYTHONPATH": os.pathsep.join(sys.path)}
        | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        code, out, err = finish(process, limit_s=400)
        print(out)
        assert code == 0, err[-6000:]
    finally:
        end(process)


def lose_a_node(folder: str) -> None:
    """Two workers on two nodes, one node is killed and stays away: one worker does the other rounds."""
    import ray
    from ray.cluster_utils import Cluster

    output, rounds = Path(folder), 120
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    memory = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={**memory, "include_dashboard": False, "_system_config": quick}
    )
    lost = cluster.add_node(**memory)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    config = load_config(
        None,
        (
            "adapter.kind=linear",
            f"mstep.rounds={rounds}",
            "mstep.batch_size=32",
            "run.agreement=false",
            "run.workers=2",
            "run.min_workers=1",
        ),
    )

    def fault() -> int:
        awaited(lambda: len(checkpoints(output)) > 1, "two rounds")
        assert len(named("TrainWorker")) == 2
        state = last_checkpoint_round(output)
        raylet = lost.all_processes["raylet"][0].process.pid
        for process in [raylet, *(number for number, _ in below(raylet))]:
            os.kill(process, signal.SIGKILL)
        awaited(lambda: last_checkpoint_round(output) > state + 2, "rounds after the loss")
        return len(named("TrainWorker"))

    with ThreadPoolExecutor(1) as pool:
        culprit = pool.submit(fault)
        state = on_ray(two_views(), config, output)
        assert culprit.result(timeout=1) == 1
    learner, done = undisturbed(two_views(), config)
    scalars = EventAccumulator(str(output / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    losses = [event.value for event in scalars.Scalars("loss/loss")]
    expected = [each.scalars["loss/loss"] for each in done]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=1e-3, atol=1e-4)
    for name, value in learner.state_dict()["adapter"].items():
        torch.testing.assert_close(state["adapter"][name], value, rtol=1e-3, atol=1e-4)
    gap = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
    print(f"{rounds} rounds, largest difference of a loss {gap:.1e}")
    ray.shutdown()
    cluster.shutdown()  # it leaves its address in Ray's folder, where the next `ray.init` looks


def spread_over_nodes(folder: str) -> None:
    """Two workers and two nodes beside a head without CPUs: each node has one, and the index is on either."""
    import ray
    from ray.cluster_utils import Cluster

    output = Path(folder)
    memory = {"object_store_memory": 100_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, **memory) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    settings = ("mstep.rounds=40", "run.workers=2", "estep.neighbourhood=0")
    config = load_config(None, ("run.agreement=false", *settings))

    def look() -> dict[str, list[int]]:
        awaited(lambda: len(checkpoints(output)) > 1, "two rounds")
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        titles = ("TrainWorker", "IndexActor")
        return {title: [len(named(title, raylet)) for raylet in raylets] for title in titles}

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(look)
        on_ray(two_views(), config, output)
        placed = found.result(timeout=1)
    print(placed)
    assert placed["TrainWorker"] == [1, 1]
    assert sum(placed["IndexActor"]) == 1
    ray.shutdown()
    cluster.shutdown()


def last_checkpoint_round(output: Path) -> int:
    """Of the newest checkpoint that is whole; it is left where it is."""
    from cvgl_ray.storage.checkpoints import load_checkpoint

    for name in reversed(checkpoints(output)):
        try:
            return int(load_checkpoint(output / "train" / name)["rounds_done"])
        except Exception:  # being written, or just removed
            continue
    return 0


def crowd_the_object_store(folder: str) -> None:
    """Features of 115 MB and others of 60 MB in a store of 80 MB: what does not fit waits on disk."""
    import numpy as np
    import ray
    from ray._private.internal_api import memory_summary

    tables = two_views(places=20_000, images=1, dimension=1440)
    config = load_config(
        None,
        (
            "adapter.kind=linear",
            "mstep.rounds=2",
            "mstep.steps_per_round=2",
            "mstep.batch_size=64",
            "run.agreement=false",
            "estep.rows=500",
            "estep.neighbourhood=0",
        ),
    )
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=80_000_000,
    )
    others = [ray.put(np.full(10_000_000, number, np.uint8)) for number in range(6)]
    state = on_ray(tables, config, Path(folder))
    assert_same(state, undisturbed(tables, config)[0].state_dict())
    assert [int(ray.get(other)[-1]) for other in others] == list(range(6))
    summary = memory_summary(stats_only=True)
    print(summary)
    assert "pilled" in summary
