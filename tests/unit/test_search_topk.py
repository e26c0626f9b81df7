"""The exact search of both directions against a full sort of the dense matrix."""

import numpy as np
import pytest

from cvgl_ray.search.topk import Nearest, merge, nearest_both
from cvgl_ray.search.views import within


@pytest.mark.parametrize("sizes", [(1, 1), (7, 7), (23, 9), (9, 40), (20, 20), (60, 50)])
@pytest.mark.parametrize("corrected", [False, True])
def test_both_directions_equal_a_full_sort(sizes, corrected):
    rng = np.random.default_rng(sizes)
    query, reference = (rng.normal(size=(count, 6)).astype(np.float32) for count in sizes)
    hubness = tuple(rng.random(count, dtype=np.float32) for count in sizes) if corrected else None
    dense = query @ reference.T
    if hubness is not None:
        dense -= hubness[0][:, None] + hubness[1]
    for found, scores, k in zip(
        nearest_both(query, reference, 3, 8, hubness), (dense, dense.T), (3, 8), strict=True
    ):
        order = np.argsort(-scores, axis=1)[:, :k]
        np.testing.assert_array_equal(found.ids, order)
        np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), atol=1e-5)


def test_rows_that_are_all_alike_are_each_found_once():
    alike = np.ones((11, 4), dtype=np.float32)
    for found in nearest_both(alike, alike, 11, 5):
        assert (found.ids >= 0).all()
        assert all(len(set(ids)) == len(ids) for ids in found.ids.tolist())


@pytest.mark.parametrize("cuts", [[10], [3, 4, 29], [0, 39]])
def test_shards_give_the_same_answer_as_one_index(cuts):
    rng = np.random.default_rng(0)
    query, reference = (rng.normal(size=(count, 6)).astype(np.float32) for count in (25, 40))
    whole, back = nearest_both(query, reference, 5, 3)
    shards = [nearest_both(query, part, 5, 3) for part in np.split(reference, cuts)]
    merged = merge([of_query for of_query, _ in shards], [0, *cuts], 5)
    np.testing.assert_array_equal(merged.ids, whole.ids)
    np.testing.assert_allclose(merged.scores, whole.scores, atol=1e-6)
    np.testing.assert_array_equal(np.vstack([of_reference.ids for _, of_reference in shards]), back.ids)


def test_a_shard_that_found_nothing_leaves_the_others_answer():
    found = Nearest(np.array([[1, 0]]), np.array([[0.9, 0.2]], np.float32))
    nothing = Nearest(np.array([[-1, -1]]), np.full((1, 2), -np.inf, np.float32))
    merged = merge([nothing, found], [0, 10], 3)
    assert merged.ids.tolist() == [[11, 10, -1]]


@pytest.mark.parametrize("k", [1, 5, 23])
def test_a_view_searched_in_itself_equals_a_search_of_its_copy(k):
    rows = np.random.default_rng(0).standard_normal((23, 6), dtype=np.float32)
    found, expected = within(rows, k), nearest_both(rows, rows, k, k)[0]
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
