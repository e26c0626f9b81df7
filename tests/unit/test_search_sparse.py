"""Candidates of two views, put together and ranked: against dictionaries and sorted lists."""

import numpy as np

from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.approximate import build_index, search
from cvgl_ray.search.sparse import Pairs, pairs_of
from cvgl_ray.search.topk import Nearest

RNG = np.random.default_rng(0)


def some_of(rows: int, others: int, k: int) -> Nearest:
    """Candidates in no order, some missing."""
    ids = np.stack([RNG.permutation(others)[:k] for _ in range(rows)])
    ids[RNG.random(ids.shape) < 0.2] = -1
    return Nearest(ids, np.where(ids < 0, -np.inf, RNG.normal(size=ids.shape)).astype(np.float32))


def test_pairs_are_those_of_either_side_and_the_queries_scores_count() -> None:
    of_query, of_reference = some_of(30, 20, 6), some_of(20, 30, 5)
    expected = {}
    for near, forth in ((of_reference, False), (of_query, True)):
        for row, column in np.argwhere(near.ids >= 0):
            pair = (row, near.ids[row, column])
            expected[pair if forth else pair[::-1]] = near.scores[row, column]
    found = pairs_of(of_query, of_reference)
    assert list(zip(found.query, found.reference, strict=True)) == sorted(expected)
    np.testing.assert_array_equal(found.values, [expected[pair] for pair in sorted(expected)])


def test_a_rows_best_pairs_are_those_of_a_sorted_list_and_the_earlier_of_equals() -> None:
    there = RNG.random((25, 12)) < 0.4
    there[3], there[:, 5] = False, False  # a query and a reference without a pair
    query, reference = np.nonzero(there)
    values = np.round(RNG.normal(size=len(query)), 1).astype(np.float32)  # with ties
    pairs = Pairs(query.astype(np.int32), reference.astype(np.int32), values, there.shape)
    for side, (owner, other) in enumerate(((query, reference), (reference, query))):
        near, places = pairs.nearest(side, 4)
        for row in range(there.shape[side]):
            ranked = sorted(np.flatnonzero(owner == row), key=lambda pair: -values[pair])[:4]
            missing = 4 - len(ranked)
            np.testing.assert_array_equal(near.ids[row], [*other[ranked], *[-1] * missing])
            np.testing.assert_array_equal(near.scores[row], [*values[ranked], *[-np.inf] * missing])
            assert places[row] == (ranked[0] if ranked else -1)


def test_lists_searched_one_at_a_time_find_what_faiss_finds() -> None:
    references, queries = (RNG.normal(size=(count, 16)).astype(np.float32) for count in (700, 500))
    index = build_index(references, "IVF8,Flat;nprobe=3")  # 188 queries per list
    scores, ids = search(index, queries, 280)  # some rows' lists hold fewer
    expected_scores, expected_ids = index.search(queries, 280)
    there = expected_ids >= 0
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores[there], expected_scores[there], atol=1e-4)
    assert np.isneginf(scores[~there]).all()
    assert (~there).any()


def test_more_probes_than_lists_and_a_row_of_nothing_are_answered_as_by_faiss() -> None:
    rows = unit_rows(RNG.normal(size=(700, 16)))
    every = build_index(rows, "IVF8,Flat;nprobe=64")
    np.testing.assert_array_equal(search(every, rows, 3)[1], every.search(rows, 3)[1])
    rows[5] = np.nan
    found = search(build_index(rows[10:], "IVF8,Flat;nprobe=3"), rows, 3)[1]
    assert (found[5] == -1).all()
    np.testing.assert_array_equal(found[10:, 0], np.arange(690))
