"""Answers of a cluster's tasks: awaited up to a limit, and with the cause named where there is none."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

from cvgl_ray.distributed import session
from cvgl_ray.distributed.resources import SECONDS_PER_LINE, Need, awaited_in_words, check_needs
from cvgl_ray.errors import GaveUpError

log = logging.getLogger(__name__)

TRIES = 3  # of work whose process dies, besides the first
AHEAD = 4  # tasks per CPU that are begun before the first of them is awaited
LIMIT_S = 3600.0  # for the answer of one task, which takes minutes at most


def answers(calls: Sequence[Callable[[], ray.ObjectRef]], what: str, need: Need) -> Iterator[Any]:
    """The answers of tasks in order; only so many are started that the cluster has enough to do.

    Those that an error leaves behind end by themselves: to cancel one that has just ended crashes Ray 2.60.
    Raises as `_answer` does, and GaveUpError where processes have died over one task, time and again.
    """
    left, begun = iter(calls), deque[ray.ObjectRef]()
    with giving_up(what):
        while True:
            begun.extend(call() for call in islice(left, AHEAD * session.cluster_cpus() - len(begun)))
            if not begun:
                return
            yield _answer(begun.popleft(), what, need)


def _answer(task: ray.ObjectRef, what: str, need: Need) -> Any:
    """A task's answer; meanwhile it is said now and then what is awaited where nothing is free.

    Raises InputError once the cluster has lost what can do it, and GaveUpError after LIMIT_S.
    """
    end = time.monotonic() + LIMIT_S
    while not ray.wait([task], timeout=SECONDS_PER_LINE)[0]:
        check_needs([need])
        if ray.available_resources().get("CPU", 0.0) < 1:
            log.info("%s", awaited_in_words(what, need))
        if time.monotonic() > end:
            raise GaveUpError(
                f"{what} gave up: a task that takes minutes has not answered in {LIMIT_S:.0f} s"
            )
    return ray.get(task)


@contextmanager
def giving_up(what: str) -> Iterator[None]:
    """Name the cause where processes of the cluster have died too often."""
    try:
        yield
    except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        raise GaveUpError(
            f"{what} gave up after its processes died several times: {str(error).strip().splitlines()[0]}; "
            "the usual cause is too little memory, and fewer CPUs per node or larger nodes help"
        ) from error
