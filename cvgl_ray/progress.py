"""How far a long piece of work is: tqdm's bar in a terminal, its line now and then in a job's log."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

SECONDS_PER_LINE = 30.0  # between two lines of a log
SHORT_S = 2.0  # work that is done sooner leaves no line
LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left"

Advance = Callable[[int], None]


def is_shown() -> bool:
    """Whether this process shows progress at all: its log is at INFO, as the commands set it."""
    return log.isEnabledFor(logging.INFO)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """Show `label`, how many of `total` units are done, their rate and the time that is left.

    Yields a function to call with the number of units done since its last call; 0 only shows the time. All of
    it goes to standard error, where `is_shown`. What fails here, such as a terminal that is gone, is passed
    over: no progress line ends a run.
    """
    if not is_shown() or not total:
        yield lambda _count: None
        return
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    style: dict[str, Any] = {"file": sys.stderr, "unit": f" {unit}", "dynamic_ncols": True}
    if not terminal:
        # miniters 0: the time is looked at in every call, however many units it tells of.
        style = {
            "file": _Log(),
            "unit": f" {unit}",
            "bar_format": LINE,
            "mininterval": SECONDS_PER_LINE,
            "miniters": 0,
        }
        style |= {"delay": SECONDS_PER_LINE, "leave": False, "smoothing": 0}
    bar = tqdm(total=total, desc=label, **style)

    def advance(count: int) -> None:
        with suppress(Exception):
            bar.update(count)

    try:
        yield advance
    finally:
        with suppress(Exception):
            bar.close()
    elapsed = bar.format_dict["elapsed"]
    if not terminal and elapsed >= SHORT_S:
        log.info("%s: %d %s in %s", label, bar.n, unit, tqdm.format_interval(elapsed))


class _Log:
    """What tqdm writes, as lines of the log; it writes a carriage return and blanks besides."""

    def write(self, text: str) -> None:
        if text.strip():
            log.info(" ".join(text.split()))

    def flush(self) -> None:
        """Nothing is held back."""
