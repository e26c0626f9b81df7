"""Two ways of doing one piece of work, timed in turns, so that the machine's load meets both alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Race:
    """Seconds of each repetition of the product and of its peer."""

    product_s: list[float]
    peer_s: list[float]

    @property
    def ratio(self) -> float:
        """How many times as fast as the peer the product is: the median over neighbouring repetitions."""
        return statistics.median(
            peer / product for product, peer in zip(self.product_s, self.peer_s, strict=True)
        )


def race(product: Callable[[], object], peer: Callable[[], object], repeats: int) -> Race:
    """Call both in turns, the first call going to each by turns too."""
    seconds: dict[Callable[[], object], list[float]] = {product: [], peer: []}
    for turn in range(repeats):
        for work in (product, peer) if turn % 2 == 0 else (peer, product):
            started = time.perf_counter()
            work()
            seconds[work].append(time.perf_counter() - started)
    return Race(seconds[product], seconds[peer])


def line(name: str, race: Race, target: float, *figures: str) -> str:
    """One line: the ratio, the target, whether it is met, median seconds, further figures."""
    verdict = "met" if race.ratio >= target else "MISSED"
    product, peer = statistics.median(race.product_s), statistics.median(race.peer_s)
    turns = f"{len(race.product_s)} turns" if len(race.product_s) > 1 else "1 turn"
    head = f"{name}: {race.ratio:.3g} x (target {target:g}: {verdict})"
    return "; ".join([head, f"product {product:.3g} s, peer {peer:.3g} s, {turns}", *figures])
