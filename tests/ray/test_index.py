"""What the index takes for a round, by its own methods in this process."""

import numpy as np

from cvgl_ray.config import Config
from cvgl_ray.distributed.index import IndexActor, Share

ROWS = np.arange(4)


def share(rank: int) -> Share:
    return Share(ROWS, ROWS, [rank], [rank], 2)  # type: ignore[list-item]


def test_shares_of_workers_that_were_lost_are_no_part_of_the_match():
    actor = IndexActor(Config().learning, 2, 1)
    for rank in range(4):
        actor.add(0, rank, share(rank))
    first = actor.open(0, 4)
    for rank in range(3):  # one worker is gone for good, and the others begin the round anew
        actor.add(0, rank, share(10 + rank))
    again = actor.open(0, 3)
    assert again not in ("", first)
    assert [each.query[0] for each in actor.opened[1]] == [10, 11, 12]
    assert actor.next(first, 3, 0, None) is None
    assert actor.open(0, 3) == ""  # what was opened is not there to be opened twice
    assert actor.open(1, 1) == ""
