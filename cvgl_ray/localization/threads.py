"""One process, all of its cores: independent pieces of work in threads, each of one core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Made = TypeVar("Made")

AHEAD = 2  # pieces per thread that are begun before the first of them is awaited


def in_threads(work: Callable[[Piece], Made], pieces: Iterable[Piece]) -> Iterator[Made]:
    """What `work` makes of each piece, in order, by as many threads as torch may use here.

    A small network on one picture has little to share among cores: two that work on two pictures are nearly
    twice as quick as two that wait for each other, and lose nothing where another program takes one of them.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield from map(work, pieces)
        return
    left, begun = iter(pieces), deque[Future[Made]]()
    with ThreadPoolExecutor(count, initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            while True:
                begun.extend(pool.submit(work, piece) for piece in islice(left, AHEAD * count - len(begun)))
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
