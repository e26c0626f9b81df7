"""The workers' side of the index: each gives its rows, searches what it is asked, hears pseudo-labels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch.distributed as dist
from ray.exceptions import ActorUnavailableError, RayActorError

from cvgl_ray.distributed.align import Alignment
from cvgl_ray.distributed.exchange import Answer
from cvgl_ray.distributed.index import RESTARTS, Frozen, Matched, Share
from cvgl_ray.em import collective
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.rounds import EStepRows, Matcher
from cvgl_ray.errors import GaveUpError
from cvgl_ray.search.sharded import Block, cut, search_shard

TRIES = 3  # of one round's matching
RECONNECT_S = 1.0
USUAL_CAUSE = "the usual cause is too little memory, and a larger node, or workers on more nodes, help"

Rows = Callable[[int, slice], np.ndarray]  # view, which rows -> frozen features, normalised [n, D] float32


@dataclass(frozen=True)
class Died:
    """What a worker hears instead of pseudo-labels where the actor's process died over them."""

    reason: str


def index_matcher(actor: Any, frozen: Rows, device: str, alignment: Alignment | None = None) -> Matcher:
    """A matcher that asks the actor and searches for it; all workers call it once per round.

    frozen: this worker's frozen features; device: where it searches; alignment: see `IndexActor.match`; each
    round leaves in it what was learned.
    """

    def fetch(handle: Any) -> np.ndarray:
        if isinstance(handle, Frozen):
            return frozen(handle.view, slice(handle.start, handle.stop))
        rows: np.ndarray = ray.get(handle)
        return rows

    def matcher(number: int, rows: EStepRows) -> PseudoLabels:
        query, reference = _stored(rows.query), _stored(rows.reference)
        dims = rows.query.shape[1]
        share = Share(rows.query_rows, rows.reference_rows, query, reference, dims, share=rows.share)
        reason = "its process was restarted"
        for _ in range(TRIES):
            answer = _ask(actor, number, share, alignment, partial(search_shard, fetch=fetch, device=device))
            if isinstance(answer, Matched):
                if alignment is not None:
                    alignment.state, alignment.laid = answer.learned, answer.laid
                return answer.labels
            reason = answer.reason if answer else reason
        raise GaveUpError(f"the index gave up round {number} after {TRIES} tries: {reason}; {USUAL_CAUSE}")

    return matcher


def _ask(
    actor: Any,
    number: int,
    share: Share,
    alignment: Alignment | None,
    search: Callable[[int, Any], Answer],
) -> Matched | Died | None:
    """Hand over this worker's share, search what it is asked and hear the answer, the same on all workers.

    Rank 0 alone opens the match and asks for it, so that they agree even if the actor dies in between.
    """
    try:
        ray.get(actor.add.remote(number, collective.rank(), share))
    except RayActorError as error:  # it has no restart left
        died = f"the index died {RESTARTS + 1} times: {first_line(error)}"
        raise GaveUpError(f"{died}; {USUAL_CAUSE}") from error
    if collective.world_size() > 1:
        dist.barrier()
    answer: Matched | Died | None = None
    once = {"max_task_retries": 0}
    match, matching = "", None
    if collective.rank() == 0:
        try:
            match = ray.get(actor.open.options(**once).remote(number, collective.world_size()))
            matching = actor.match.options(**once).remote(match, alignment) if match else None
        except RayActorError as error:
            answer = Died(first_line(error))
    match = collective.from_rank_zero(match)
    if match:
        _serve(actor.next.options(**once), match, search)
    if matching is not None:
        try:
            answer = ray.get(matching)
        except RayActorError as error:
            answer = Died(first_line(error))
            actor.end.remote(match)  # should it live after all, where only the connection broke
    heard: Any = collective.from_rank_zero(answer)
    assert heard is None or isinstance(heard, Matched | Died)
    return heard


def _serve(ask_next: Any, match: str, search: Callable[[int, Any], Answer]) -> None:
    """Search what the match asks of this worker, until it is over or the actor's process has died."""
    heard, answer, shard = 0, None, collective.rank()
    while True:
        try:
            asked = ray.get(ask_next.remote(match, shard, heard, answer))
        except ActorUnavailableError:  # it lives: the connection broke
            time.sleep(RECONNECT_S)
            continue
        except RayActorError:
            return
        if asked is None:
            return
        heard, ask = asked
        answer = search(shard, ask)


def first_line(error: RayActorError) -> str:
    """Ray's sentence about a dead actor, and the system's reason where it gives one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return " ".join(dict.fromkeys([*lines[:1], *reasons[:1]]))


def _stored(rows: np.ndarray) -> list[Block]:
    """Put rows into the object store."""
    return [Block(ray.put(part), len(part)) for part in cut(rows, 1)]
