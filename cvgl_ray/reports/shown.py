"""Charts and pictures are for people: none of them may end a run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def shown(what: str) -> Iterator[None]:
    """Run the block; where it fails, say so in one line of the log and go on. what: its name in that line."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        log.warning("%s could not be made (%s: %s); the run goes on", what, type(error).__name__, reason)
        log.debug("%s", what, exc_info=True)
