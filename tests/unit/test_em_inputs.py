"""What is refused before a training, in a sentence that names the argument, and what is only doubted."""

import numpy as np
import pytest

from cvgl_ray.em.inputs import check_views, doubts
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import row_digests as digests


def rows(count, dimension=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@pytest.mark.parametrize(
    ("query", "reference", "message"),
    [
        (rows(5)[0], rows(5), r"queries has shape \[4\]; give a matrix"),
        (rows(5), rows(0), r"references has shape \[0, 4\]"),
        (rows(5), rows(5, 0), r"references has shape \[5, 0\]"),
        (rows(1), rows(5), "queries has 1 row; training needs at least two"),
        (rows(5), rows(5, 6), "queries has 4 columns and references 6"),
        (rows(5), np.full((5, 4), np.nan), "references has 5 of 5 rows with NaN"),
        (np.full((5, 4), "a"), rows(5), "queries holds <U1; give numbers"),
    ],
)
def test_what_cannot_be_trained_on_is_named(query, reference, message):
    with pytest.raises(InputError, match=message):
        check_views(query, reference)


def test_equal_images_few_images_and_uneven_views_are_doubted():
    assert doubts(digests(rows(30)), digests(rows(30, seed=1))) == []
    black = np.ones((30, 4), np.float16)
    [one] = doubts(digests(black), digests(rows(30)))
    assert one.startswith("29 of 30 query images have the same feature as another one")
    few, uneven = doubts(digests(rows(2)), digests(rows(500)))
    assert few.startswith("there are 2 query images")
    assert uneven.startswith("there are 500 reference images against 2 of the other view")
