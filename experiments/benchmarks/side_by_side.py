"""Two ways of doing one piece of work, timed in turns, so that the machine's load meets both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Race:
    """Seconds of each repetition of the product and of its peer; CPU seconds are this process's."""

    product_s: list[float]
    peer_s: list[float]
    product_cpu_s: list[float] = field(default_factory=list)
    peer_cpu_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How many times as fast as the peer the product is: the median over neighbouring repetitions."""
        return _median_ratio(self.product_s, self.peer_s)

    def by_cpu(self) -> str:
        """The same of CPU time, which other processes' load cannot stretch."""
        return f"by CPU time {_median_ratio(self.product_cpu_s, self.peer_cpu_s):.3g} x"


def race(product: Callable[[], object], peer: Callable[[], object], repeats: int) -> Race:
    """Call both in turns, the first call going to each by turns too."""
    result = Race([], [])
    sides = (product, result.product_s, result.product_cpu_s), (peer, result.peer_s, result.peer_cpu_s)
    for turn in range(repeats):
        for work, seconds, cpu_seconds in sides if turn % 2 == 0 else sides[::-1]:
            started, cpu_started = time.perf_counter(), time.process_time()
            work()
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
    return result


def line(name: str, race: Race, target: float, *figures: str) -> str:
    """One line: the ratio, the target, whether it is met, median seconds, further figures."""
    verdict = "met" if race.ratio >= target else "MISSED"
    product, peer = statistics.median(race.product_s), statistics.median(race.peer_s)
    turns = f"{len(race.product_s)} turns" if len(race.product_s) > 1 else "1 turn"
    head = f"{name}: {race.ratio:.3g} x (target {target:g}: {verdict})"
    return "; ".join([head, f"product {product:.3g} s, peer {peer:.3g} s, {turns}", *figures])


def _median_ratio(product: list[float], peer: list[float]) -> float:
    return statistics.median(theirs / ours for ours, theirs in zip(product, peer, strict=True))
