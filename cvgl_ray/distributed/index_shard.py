"""Actors that hold the index in shards, for collections that one machine's memory does not take."""

from collections.abc import Sequence
from typing import Any

import faiss
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cvgl_ray.search.nearest import Found
from cvgl_ray.search.shards import Ask, AskEach, search_shard


class IndexShard:
    """Holds its share of the rows while it searches them.

    They come from the object store, where the workers put them: restarted after a crash, a shard fetches
    them once more and answers what it was asked.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)

    def search(self, number: int, ask: Ask) -> tuple[Found, Found]:
        return search_shard(number, ask, ray.get)


def start_shards(count: int, *, threads: int) -> list[Any]:
    """Start shards, in turn on each node that has CPUs; they end with the actor that started them."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    # Ray gives an actor that wants nothing to any node, whatever it is told; a byte of memory is something.
    actor: Any = ray.remote(num_cpus=0, memory=1, max_restarts=-1, max_task_retries=-1)(IndexShard)
    # Soft: another node where it is gone.
    places = [NodeAffinitySchedulingStrategy(nodes[n % len(nodes)], soft=True) for n in range(count)]
    return [actor.options(scheduling_strategy=place).remote(threads) for place in places]


def asking(shards: Sequence[Any]) -> AskEach:
    """How these actors are asked, all at the same time."""

    def ask_each(ask: Ask) -> list[tuple[Found, Found]]:
        everyone = ray.put(ask)
        numbered = zip(range(ask.shards), shards, strict=False)  # there may be more than are needed
        return ray.get([shard.search.remote(number, everyone) for number, shard in numbered])

    return ask_each
