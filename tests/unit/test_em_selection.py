"""Label-free scores of pseudo-labels made by hand."""

import numpy as np
import pytest

from cvgl_ray.em.matching import PseudoLabels, label_free_scores


def labels(best_of_query, best_of_reference, **changes):
    best_q, best_r = np.array(best_of_query), np.array(best_of_reference)
    return PseudoLabels(
        **{
            "query_rows": np.arange(len(best_q)),
            "reference_rows": np.arange(len(best_r)),
            "of_query": np.where(best_r[best_q] == np.arange(len(best_q)), best_q, -1),
            "of_reference": np.where(best_q[best_r] == np.arange(len(best_r)), best_r, -1),
            "best_of_query": best_q,
            "best_of_reference": best_r,
            "cosine": np.ones(len(best_q), np.float32),
            "margin": np.linspace(0, 1, len(best_q), dtype=np.float32),
            "examples": np.zeros((0, 1), np.int64),
            **changes,
        }
    )


def test_scores_of_more_queries_than_references():
    # Queries 0, 1, 2 name reference 0, query 3 names 1, query 4 names 2; 0 and 3 are named back.
    scores = label_free_scores(labels([0, 0, 0, 1, 2], [0, 3, 1, 4]))
    assert scores == pytest.approx(
        {"mutual": 2 / 4, "cycle": 2 / 5, "coverage": 3 / 4, "margin": 0.5, "labelled": 2 / 5}
    )


def test_a_perfect_matching_scores_one():
    scores = label_free_scores(labels([2, 0, 1], [1, 2, 0]))
    assert [scores[name] for name in ("mutual", "cycle", "coverage", "labelled")] == [1, 1, 1, 1]


def test_the_smaller_view_is_the_ceiling_of_mutual():
    scores = label_free_scores(labels([0, 1, 0, 1, 0, 1], [2, 5]))
    assert scores["mutual"] == 1
    assert scores["cycle"] == pytest.approx(1 / 3)
    reverse = label_free_scores(labels([2, 5], [0, 1, 0, 1, 0, 1]))
    assert (reverse["mutual"], reverse["cycle"], reverse["coverage"]) == (1, 1, pytest.approx(1 / 3))


def test_a_query_without_any_answer_covers_nothing():
    scores = label_free_scores(labels([0, -1], [0, -1]))
    assert (scores["coverage"], scores["mutual"]) == (0.5, 0.5)


def test_churn_is_the_share_of_changed_minds():
    before, after = labels([0, 1, 2, 0], [0, 1, 2]), labels([0, 2, 2, 1], [0, 1, 2])
    assert label_free_scores(after, before)["churn"] == 0.5
    assert label_free_scores(after, after)["churn"] == 0
    assert "churn" not in label_free_scores(after)


@pytest.mark.parametrize("side", ["query_rows", "reference_rows"])
def test_churn_is_silent_where_other_rows_were_seen(side):
    """Positions of another random batch mean other images."""
    now = labels([0, 1, 2], [0, 1, 2])
    before = labels([0, 1, 2], [0, 1, 2], **{side: np.array([0, 1, 7])})
    assert "churn" not in label_free_scores(now, before)
