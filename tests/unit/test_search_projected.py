"""Wide rows, looked for by few numbers and scored by all: against the exact search."""

import numpy as np
import pytest

from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.approximate import EXACT_PRODUCTS, NARROW, WIDE, chosen, projection, scored_again
from cvgl_ray.search.views import Exact, Indexed, within


def two_views(count: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Views that share what 400 directions of falling strength tell, and differ by noise."""
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(400, dims)) * (np.arange(1, 401)[:, None] ** -0.5)
    told = rng.normal(size=(count, 400)) @ basis
    query, reference = (unit_rows(told + 0.5 * rng.normal(size=told.shape)) for _ in range(2))
    return query, reference


@pytest.mark.parametrize("corrected", [False, True])
def test_candidates_of_wide_rows_are_the_exact_ones_with_their_exact_scores(corrected: bool) -> None:
    query, reference = two_views(600, WIDE + 188)
    rng = np.random.default_rng(1)
    hubs = (rng.random(600, np.float32) / 5, rng.random(600, np.float32) / 5) if corrected else None
    exact, found = (
        search.nearest(32, 32, hubs)
        for search in (Exact(query, reference), Indexed(query, reference, "Flat"))
    )
    for side, right, own in zip(found, exact, hubs or (np.zeros(600), np.zeros(600)), strict=True):
        recall = np.mean([np.isin(a, b).mean() for a, b in zip(right.near.ids, side.near.ids, strict=True)])
        assert recall > 0.95
        same = side.near.ids[:, 0] == right.near.ids[:, 0]
        assert same.mean() > 0.98
        scores = side.near.scores[:, 0] - own  # an index leaves out the term of the row that asks
        np.testing.assert_allclose(scores[same], right.near.scores[same, 0], atol=1e-5)
        np.testing.assert_allclose(side.cosine[same], right.cosine[same], atol=1e-6)


def test_a_wide_row_is_nearest_to_itself_within_its_view() -> None:
    rows, _ = two_views(700, WIDE + 188)
    near = within(rows, 4, "IVF16,SQfp16;nprobe=16")
    np.testing.assert_array_equal(near.best(), np.arange(700))
    np.testing.assert_allclose(near.scores[:, 0], 1, atol=1e-5)


def test_narrow_rows_are_looked_for_as_they_are() -> None:
    assert projection(np.ones((9, WIDE), np.float32)) is None
    found = projection(two_views(600, WIDE + 1)[0])
    assert found is not None
    assert found.shape == (WIDE + 1, NARROW)
    np.testing.assert_allclose(found.T @ found, np.eye(NARROW), atol=1e-4)


def test_a_candidate_that_an_index_did_not_find_has_no_score() -> None:
    query, reference = two_views(3, 8)
    scores = scored_again(query, reference, np.array([[2, -1], [0, 1], [-1, -1]]))
    expected = query @ reference.T
    np.testing.assert_allclose(scores[:2, 0], expected[[0, 1], [2, 0]], rtol=1e-5)
    np.testing.assert_array_equal(np.isneginf(scores), [[False, True], [False, False], [True, True]])


def test_auto_counts_products_so_that_wide_rows_take_lists_earlier() -> None:
    assert chosen("auto", 2**17, 2**17, 512) == "Flat"
    assert chosen("auto", 2**17, 2**17, EXACT_PRODUCTS // 2**34 * 2).startswith("IVF")
    assert chosen("auto", 2**17, 2**17, 9216, "cuda") == "Flat"
    assert chosen("auto", 37_854, 37_854, 9216) == "Flat"
