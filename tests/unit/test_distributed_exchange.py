"""Searches that one thread asks of others: each shard answers each once, and nobody waits for the gone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from cvgl_ray.distributed.exchange import Exchange, LeftError
from cvgl_ray.search.sharded import Ask
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Found

LIMIT_S = 20
ASK = Ask(([], []), shards=2, factory="Flat", k_query=1, k_reference=0, hubness=None)


def found(number: float) -> tuple[Found, Found]:
    near = Nearest(np.zeros((1, 1), np.int64), np.full((1, 1), number, np.float32))
    return Found(near, np.zeros(1, np.float32)), Found(near, np.zeros(1, np.float32))


def serve(exchange: Exchange, match: str, shard: int) -> list[int]:
    """What a worker does until the match is over; the k_query of all that it was asked."""
    heard, answer, asked = 0, None, []
    while (told := exchange.next(match, shard, heard, answer)) is not None:
        heard, ask = told
        asked.append(ask.k_query)
        answer = found(10 * ask.k_query + shard)
    return asked


def test_every_shard_answers_what_it_is_asked_in_the_order_of_the_shards():
    exchange = Exchange()
    exchange.begin("one")
    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(serve, exchange, "one", shard) for shard in (1, 0, 2)]
        for k in (3, 4):  # three workers, but rows for two shards alone
            answers = exchange.ask_each("one", replace(ASK, k_query=k))
            assert [answer[0].near.scores[0, 0] for answer in answers] == [10 * k, 10 * k + 1]
        exchange.end("another")  # which is not going on
        assert exchange.match == "one"
        exchange.end("one")
        assert [worker.result(LIMIT_S) for worker in workers] == [[3, 4], [3, 4], []]


def test_a_match_that_is_begun_anew_lets_the_old_one_go():
    exchange = Exchange()
    exchange.begin("one")
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(exchange.ask_each, "one", ASK)
        waiting = pool.submit(exchange.next, "one", 5, 0, None)  # of a shard that is not asked
        exchange.begin("two")
        with pytest.raises(LeftError):
            asking.result(LIMIT_S)
        assert waiting.result(LIMIT_S) is None
    assert exchange.next("one", 0, 0, found(1)) is None  # too late, and not taken for an answer to "two"
    assert exchange.answers == {}


def test_an_answer_that_comes_twice_is_none_to_the_next_ask():
    exchange = Exchange()
    exchange.begin("one")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(exchange.ask_each, "one", replace(ASK, shards=1))
        heard, _ = exchange.next("one", 0, 0, None)
        pool.submit(
            exchange.next, "one", 0, heard, found(7)
        )  # waits behind the one thread, and is heard later
        with exchange.changed:
            exchange.answers[0] = found(7)
            exchange.changed.notify_all()
        assert asking.result(LIMIT_S)[0][0].near.scores[0, 0] == 7
        exchange.asks.append(replace(ASK, shards=1, k_query=2))
        exchange.answers = {}
        assert exchange.next("one", 0, heard, found(7)) == (2, exchange.asks[1])
        assert exchange.answers == {}
        exchange.end("one")
