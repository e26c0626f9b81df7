"""The searches of one match, handed to the workers that wait for them, and what each of them finds."""

import threading
from dataclasses import dataclass, field

from cvgl_ray.search.sharded import Ask
from cvgl_ray.search.views import Found

Answer = tuple[Found, Found]  # of a shard, see `search_shard`


class LeftError(Exception):
    """The workers that a match asked are gone: others have begun it anew."""


@dataclass
class Exchange:
    """Between the thread that matches and those in which workers wait; a match is known by its name."""

    match: str = ""  # that is going on; any other is over
    asks: list[Ask] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)  # to the last ask, by shard
    changed: threading.Condition = field(default_factory=threading.Condition)  # its lock may be taken twice

    def begin(self, match: str) -> None:
        """Begin a match; who still waits in an earlier one is let go."""
        with self.changed:
            self.match, self.asks, self.answers = match, [], {}
            self.changed.notify_all()

    def end(self, match: str) -> None:
        """End a match, unless another one has begun: those who wait in it are let go."""
        with self.changed:
            if match == self.match:
                self.begin("")

    def ask_each(self, match: str, ask: Ask) -> list[Answer]:
        """The answer of every shard. Raises LeftError where the match is over before all have answered."""
        with self.changed:
            if match != self.match:
                raise LeftError
            self.answers = {}
            self.asks.append(ask)
            self.changed.notify_all()
            self.changed.wait_for(lambda: match != self.match or len(self.answers) == ask.shards)
            if match != self.match:
                raise LeftError
            return [self.answers[shard] for shard in range(ask.shards)]

    def next(self, match: str, shard: int, heard: int, answer: Answer | None) -> tuple[int, Ask] | None:
        """Take a shard's answer to the last of the asks that it has `heard`, and wait for the next one.

        Returns how many it has heard by then and what it is asked, or None where the match is over.
        """
        with self.changed:
            # An answer that comes twice, over a broken connection, is none to a later ask.
            if answer is not None and match == self.match and heard == len(self.asks):
                self.answers[shard] = answer
                self.changed.notify_all()
            while match == self.match:
                for number, ask in enumerate(self.asks[heard:], heard + 1):
                    if shard < ask.shards:  # there may be fewer shards than workers
                        return number, ask
                self.changed.wait()
            return None
