"""What a run asks of a cluster against what the cluster has, or may grow to."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cvgl_ray.config import Run
from cvgl_ray.errors import InputError

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 30.0  # between two lines that say what is awaited
LAUNCHED = Path("~/ray_bootstrap_config.yaml")  # what `ray up` leaves on the head: the types of nodes

_GPU = " with run.gpu = true"

Resources = Mapping[str, float]  # by Ray's names, "CPU", "GPU", "memory" (bytes)


@dataclass(frozen=True)
class Need:
    """`count` processes, each of which takes `each` of one node.

    key: the setting that asks for them, as a user would write it.
    """

    key: str
    count: int
    each: Resources


def training_need(run: Run) -> Need:
    """Of a training: as many workers as it needs to begin."""
    key = "run.min_workers" if run.min_workers else "run.workers"
    count = run.min_workers or run.workers
    each = {"CPU": 1.0, "GPU": 1.0} if run.gpu else {"CPU": 1.0}
    return Need(f"{key} = {count}{_GPU if run.gpu else ''}", count, each)


def extraction_need(actors: int, *, gpu: bool) -> Need:
    """Of an extraction: so many actors, or with 0 one at least of those that there is room for."""
    key = f"features.actors = {actors}" if actors else "the extraction"
    return Need(f"{key}{_GPU if gpu else ''}", max(1, actors), {"GPU": 1.0} if gpu else {"CPU": 1.0})


def check_needs(needs: Sequence[Need]) -> None:
    """Refuse what neither the cluster's nodes nor those that an autoscaler may add can ever give.

    Raises InputError, which names what is asked and what there is.
    """
    _check(needs, alive_nodes(), node_types(), "the cluster")


def check_needs_here(needs: Sequence[Need]) -> None:
    """As `check_needs`, of a cluster that is yet to be started on this machine."""
    machine = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    _check(needs, [machine], [], "this machine")


def _check(
    needs: Sequence[Need],
    nodes: Sequence[Resources],
    growth: Sequence[tuple[float, Resources]] | None,
    where: str,
) -> None:
    for need in needs:
        room = sum(_fit(node, need.each) for node in nodes)
        if growth is None or room >= need.count:
            continue
        room += sum(count * _fit(node, need.each) for count, node in growth)
        if room < need.count:
            grown = ", even when all nodes are added that its autoscaler may add" if growth else ""
            raise InputError(
                f"{need.key} asks for {need.count} x {_spoken(need.each)}, and {where} has room for "
                f"{int(room)}{grown} ({in_words(nodes)}); ask for less, or join a larger cluster with "
                "--address"
            )


def _fit(node: Resources, each: Resources) -> float:
    """How many times `each` fits into a node."""
    return min(node.get(name, 0.0) // amount for name, amount in each.items())


def alive_nodes() -> list[Resources]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def node_types() -> list[tuple[float, Resources]] | None:
    """(how many at most, what each has) of the nodes that an autoscaler may add: [] without an autoscaler.

    None where there is one and its types are not known here, as on Kubernetes.
    """
    if LAUNCHED.expanduser().exists():
        import yaml

        launched = yaml.safe_load(LAUNCHED.expanduser().read_text())
        most = launched.get("max_workers", float("inf"))
        return [
            (min(most, kind.get("max_workers", most)), kind.get("resources", {}))
            for name, kind in launched["available_node_types"].items()
            if name != launched.get("head_node_type")
        ]
    # KubeRay starts a head without Ray's own monitor where the autoscaler runs beside it.
    return None if "--no-monitor" in os.environ.get("KUBERAY_GEN_RAY_START_CMD", "") else []


def in_words(nodes: Sequence[Resources]) -> str:
    """Such as "2 CPUs and 0 GPUs on 1 node"."""
    cpus, gpus = (int(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU"))
    return f"{_counted(cpus, 'CPU')} and {_counted(gpus, 'GPU')} on {_counted(len(nodes), 'node')}"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _spoken(each: Resources) -> str:
    return "(" + " + ".join(f"{amount:g} {name}" for name, amount in each.items()) + ")"


def node_cores() -> int:
    """CPUs of the node on which this process runs: those that Ray gives out there, else the machine's."""
    here = ray.get_runtime_context().get_node_id()
    given = next((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == here), 0)
    return int(given) or os.cpu_count() or 1


def place(memory: int, number: int = 0) -> dict[str, Any]:
    """Options of an actor that works while the workers wait: it shares their CPUs, and reserves its memory.

    It goes to the nodes that have CPUs, in turn and those with the most memory first; to any where they are
    gone or none is up yet. It asks for no more memory than its node has: Ray would wait for ever.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    nodes.sort(key=lambda node: (-node["Resources"].get("memory", 0), node["NodeID"]))
    options: dict[str, Any] = {"num_cpus": 0}
    if nodes:
        node = nodes[number % len(nodes)]
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        memory = min(memory, int(node["Resources"].get("memory", 0)))
    # Ray gives an actor that asks for nothing to any node, whatever it is told; a byte is something.
    return options | {"memory": max(1, memory)}


def this_node() -> dict[str, Any]:
    """Options of what reads this node's files and takes no CPU, which a head node may not have to give."""
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def given_everywhere(memory: int) -> int:
    """So many bytes of a task's memory, or what the smallest node with CPUs has: Ray would wait for more."""
    nodes = [node for node in alive_nodes() if node.get("CPU")]
    return max(1, min([memory, *(int(node.get("memory", 0)) for node in nodes)]))


def use_threads(count: int) -> None:
    """Let torch and faiss use so many threads in this process; 0: as many as the node has cores."""
    count = count or node_cores()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)


@contextmanager
def said_while_awaited(what: str, need: Need) -> Iterator[Callable[[], None]]:
    """Say now and then that `what` waits for its need, until the yielded function is called."""
    begun = threading.Event()

    def say() -> None:
        while not begun.wait(SECONDS_PER_LINE):
            log.info("%s", awaited_in_words(what, need))

    threading.Thread(target=say, daemon=True).start()
    try:
        yield begun.set
    finally:
        begun.set()


def awaited_in_words(what: str, need: Need) -> str:
    """What is awaited, and what the cluster has and has free at this moment."""
    free = ray.available_resources()
    left = " and ".join(_counted(int(free.get(name, 0)), name) for name in need.each)
    asked = f"{need.count} x {_spoken(need.each)}"
    return f"{what} waits for {asked}: {left} are free now ({in_words(alive_nodes())})"
