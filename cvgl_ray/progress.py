"""How far a long piece of work is: a bar in a terminal, a line now and then in a job's log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SECONDS_A_LINE = 30.0  # between two lines of a log
SHORT_S = 2.0  # work that is done sooner leaves no line

Advance = Callable[[int], None]


def is_shown() -> bool:
    """Whether this process shows progress at all: its log is at INFO, as the commands set it."""
    return log.isEnabledFor(logging.INFO)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `label`, how many of `total` units are done, their rate and the time that is left.

    Yields a function to call with the number of units done since its last call; 0 only shows the time. All of
    it goes to standard error, where `is_shown`.
    """
    if not is_shown() or not total:
        yield lambda _count: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True, file=sys.stderr) as bar:
            yield lambda count: bar.update(count) and None
    else:
        lines = _Lines(label, total, unit)
        yield lines.advance
        lines.end()


class _Lines:
    """Progress as lines of the log."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.began = self.said = time.monotonic()
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said < SECONDS_A_LINE:
            return
        self.said = now
        elapsed = now - self.began
        left = "" if not self.done else f", {_span(elapsed * (self.total / self.done - 1))} left"
        log.info(
            "%s: %d of %d %s, %.3g/s%s",
            self.label,
            self.done,
            self.total,
            self.unit,
            self.done / elapsed,
            left,
        )

    def end(self) -> None:
        elapsed = time.monotonic() - self.began
        if elapsed >= SHORT_S:
            log.info("%s: %d %s in %s", self.label, self.done, self.unit, _span(elapsed))


def _span(seconds: float) -> str:
    """A duration for people: 8 s, 2:05 min, 1:02 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours else f"{minutes}:{seconds:02} min"
