"""What is shown of a training while its workers are at work, or are awaited: charts and a progress line."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import ray.train
from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.distributed.resources import SECONDS_PER_LINE, Need, awaited_in_words
from cvgl_ray.progress import is_shown, progress
from cvgl_ray.reports.legend import about
from cvgl_ray.reports.shown import shown

log = logging.getLogger(__name__)

POLL_S = 0.25  # between two looks at how far a training is


@contextmanager
def show_rounds(actor: Any, rounds: int, need: Need) -> Iterator[None]:
    """Show how many rounds are over, or what the training waits for: the index is asked, in a thread."""
    if not is_shown():
        yield
        return
    ended, succeeded = threading.Event(), threading.Event()

    def watch() -> None:
        with shown("the training's progress line"):
            rounds_done = _asked(actor)
            _await_workers(rounds_done, need, ended)
            with progress("training", rounds, "rounds") as advance:
                seen = 0
                while not ended.wait(POLL_S):
                    done = max(seen, rounds_done())
                    advance(done - seen)
                    seen = done
                if succeeded.is_set():
                    advance(rounds - seen)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        succeeded.set()
    finally:
        ended.set()
        watcher.join()


def _await_workers(rounds_done: Callable[[], int], need: Need, ended: threading.Event) -> None:
    """Say now and then what is awaited, until the first worker is there or the training has ended."""
    said = time.monotonic()
    while not ended.wait(POLL_S) and rounds_done() < 0:
        if time.monotonic() - said > SECONDS_PER_LINE:
            said = time.monotonic()
            log.info("%s", awaited_in_words("training", need))


def _asked(actor: Any) -> Callable[[], int]:
    """How many rounds are over as the index last said, -1 before the first worker; one question at a time."""
    known, pending = -1, actor.rounds_done.remote()

    def rounds_done() -> int:
        nonlocal known, pending
        if ray.wait([pending], timeout=0)[0]:  # else it is at work, or not there yet
            with suppress(ray.exceptions.RayError):  # the training itself says what is wrong
                known = max(known, ray.get(pending))
            pending = actor.rounds_done.remote()
        return known

    return rounds_done


class RoundWriter(ray.train.UserCallback):
    """Writes every round's scalars and histograms; runs in Ray Train's controller process.

    A scalar is the largest over the workers: they agree on all but time and memory.
    """

    def __init__(self, folder: str, configuration: str) -> None:
        """configuration: what the folder shows of it, as Markdown."""
        self.folder, self.configuration = folder, configuration
        self._writer: SummaryWriter | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with shown("a round's charts"):
            self._write(metrics)

    def _write(self, metrics: list[dict[str, Any]]) -> None:
        first = metrics[0]
        number = first["round"]
        if self._writer is None:  # opened here: the callback itself travels to the controller
            # What an interrupted run wrote of this round and later ones is not shown.
            self._writer = SummaryWriter(self.folder, purge_step=number)
            self._writer.add_text("about", about())
            self._writer.add_text("configuration", self.configuration)
        for name, value in first.items():
            if name in ("round", "histograms"):
                continue
            self._writer.add_scalar(name, max(worker.get(name, value) for worker in metrics), number)
        for name, histogram in first["histograms"].items():
            self._writer.add_histogram_raw(name, **histogram, global_step=number)
        self._writer.flush()
