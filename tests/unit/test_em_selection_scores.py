"""Label-free scores of embeddings and of whole configurations, on rows made for the purpose."""

import numpy as np
import pytest

from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.em.selection import half_feature_agreement, pair_agreement, rank_me
from cvgl_ray.em.views import unit_rows


def label(query, reference):
    return pseudo_labels(unit_rows(query), unit_rows(reference), scores="cosine")


def views(noise, places=40, dimension=64, images=1):
    """One reference and some queries of each place, alike but for noise."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(places, dimension))
    query = np.repeat(reference, images, axis=0) + noise * rng.normal(size=(places * images, dimension))
    return query.astype(np.float16), reference.astype(np.float16)


def test_pair_agreement_counts_queries_labelled_alike():
    eye = np.eye(4, dtype=np.float32)
    straight, swapped = label(eye, eye), label(eye, eye[[1, 0, 2, 3]])
    assert pair_agreement(straight, straight) == 1
    assert pair_agreement(straight, swapped) == 0.5


def test_pair_agreement_on_no_label_is_no_agreement():
    eye = np.eye(2, dtype=np.float32)
    none = pseudo_labels(eye, eye, threshold=1.0)
    assert (none.of_query == -1).all()
    assert pair_agreement(none, none) == 0


@pytest.mark.parametrize("images", [1, 3])
def test_half_feature_agreement_falls_as_the_views_drift_apart(images):
    scores = [half_feature_agreement(*views(noise, images=images), label) for noise in (0.1, 1.5, 100.0)]
    assert scores[0] == 1
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 0.1


def test_half_feature_agreement_splits_the_dimensions_between_its_models():
    query, reference = views(0.1, dimension=65)
    query[:], reference[:] = np.arange(65), np.arange(65)
    seen = []

    def watch(half_query, half_reference):
        seen.append(half_query[0].astype(int).tolist())
        np.testing.assert_array_equal(half_query[0], half_reference[0])
        return label(half_query, half_reference)

    half_feature_agreement(query, reference, watch)
    half_feature_agreement(query, reference, watch, seed=1)
    assert sorted(seen[0] + seen[1]) == list(range(65))
    assert sorted(map(len, seen[:2])) == [32, 33]
    assert set(seen[0]) != set(seen[2])


@pytest.mark.parametrize(("rows", "expected"), [(np.eye(5), 5), (np.ones((5, 3)), 1)])
def test_rank_me_of_all_directions_and_of_a_collapse(rows, expected):
    assert rank_me(rows) == pytest.approx(expected)


def test_rank_me_is_the_entropy_of_the_spectrum():
    shares = np.array([0.5, 0.25, 0.25])
    assert rank_me(np.diag(shares)) == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares)))
