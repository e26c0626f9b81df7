"""Actors that each search a share of the rows, for collections that one machine's memory does not take."""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from cvgl_ray.distributed.resources import place, use_threads
from cvgl_ray.errors import GaveUpError
from cvgl_ray.search.sharded import Ask, AskEach, search_shard
from cvgl_ray.search.views import Found

TRIES = 3  # of one round's matching, and of one search by a shard
RESTARTS = 10  # of an actor in the life of a training, whose nodes may come and go


class IndexShard:
    """Holds its share of the rows while it searches them.

    They come from the object store: restarted after a crash, it fetches them again and answers.
    """

    def __init__(self) -> None:
        use_threads(0)

    def search(self, number: int, ask: Ask) -> tuple[Found, Found]:
        return search_shard(number, ask, ray.get)


def start_shards(count: int, memory: int) -> list[Any]:
    """Start shards of so many bytes each, in turn on each node; they end with the actor that started them."""
    actor: Any = ray.remote(max_restarts=RESTARTS, max_task_retries=TRIES - 1)(IndexShard)
    return [actor.options(**place(memory, number)).remote() for number in range(count)]


def asking(shards: Sequence[Any]) -> AskEach:
    """How these actors are asked, all at the same time."""

    def ask_each(ask: Ask) -> list[tuple[Found, Found]]:
        everyone = ray.put(ask)
        numbered = zip(range(ask.shards), shards, strict=False)  # there may be more than are needed
        try:
            return ray.get([shard.search.remote(number, everyone) for number, shard in numbered])
        except RayActorError as error:
            raise GaveUpError(
                f"a shard of the index died {TRIES} times over one search: {first_line(error)}; the usual "
                "cause is too little memory, and more nodes or more estep.shards help"
            ) from error

    return ask_each


def first_line(error: RayActorError) -> str:
    """Ray's sentence about a dead actor, and the system's reason where it gives one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return " ".join(dict.fromkeys([*lines[:1], *reasons[:1]]))
