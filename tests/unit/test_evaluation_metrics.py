"""Fast metrics against an oracle that takes one query, one reference and one formula at a time."""

import numpy as np
import pytest
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metrics import (
    average_precision,
    geodesic_error_m,
    query_results,
    retrieval_metrics,
    summarize,
)
from cvgl_ray.search.ranks import of_places


def oracle(scores, query_places, gallery_places, ks):
    """The figures from a [Q, G] matrix of scores, by plain loops."""
    first, ap, ap_standard = [], [], []
    for row, place in zip(scores.tolist(), query_places, strict=True):
        relevant = [bool(place) and place == other for other in gallery_places]
        if not any(relevant):
            continue
        # Best score first; among equals the irrelevant ones.
        order = sorted(range(len(row)), key=lambda g: (-row[g], relevant[g]))
        hits, trapezoid, standard = 0, 0.0, 0.0
        for rank, g in enumerate(order):
            if not relevant[g]:
                continue
            if not hits:
                first.append(rank)
            old = hits / rank if rank else 1.0
            hits += 1
            precision = hits / (rank + 1)
            trapezoid += (old + precision) / 2
            standard += precision
        ap.append(trapezoid / hits)
        ap_standard.append(standard / hits)
    one_percent = max(1, round(len(gallery_places) * 0.01))
    figures = {f"R@{k}": 100 * sum(r < k for r in first) / len(first) for k in ks}
    figures["R@1%"] = 100 * sum(r < one_percent for r in first) / len(first)
    figures |= {"AP": 100 * sum(ap) / len(ap), "AP_standard": 100 * sum(ap_standard) / len(ap_standard)}
    figures |= {"queries": len(query_places), "gallery": len(gallery_places)}
    figures["queries_without_relevant"] = len(query_places) - len(first)
    return figures


def means(metrics):
    """The figures without their intervals."""
    return {name: value for name, value in metrics.items() if not name.endswith(("_low", "_high"))}


def world(seed, queries, gallery, places, *, share_of_distractors=0.2):
    """Small integers as embeddings: exact products, hence many exact ties."""
    rng = np.random.default_rng(seed)
    names = np.array(["", *(f"place {i}" for i in range(places + 1))])
    query_places = names[rng.integers(0, places + 2, queries)]  # "" and the last place have no reference
    gallery_places = names[rng.integers(1, places + 1, gallery)]
    gallery_places[rng.random(gallery) < share_of_distractors] = ""
    embed = lambda n: torch.from_numpy(rng.integers(-2, 3, (n, 4)).astype(np.float32))  # noqa: E731
    return embed(queries), embed(gallery), query_places, gallery_places


@pytest.mark.parametrize(
    ("queries", "gallery", "places"),
    [(60, 6, 3), (300, 150, 40), (40, 800, 12)],  # few relevant a query, some, many (the row-by-row path)
)
@pytest.mark.parametrize("memory", [1, 20_000, 2**28])  # one query a chunk, several, all at once
def test_metrics_equal_the_oracle(queries, gallery, places, memory):
    q, g, query_places, gallery_places = world(queries, queries, gallery, places)
    fast = retrieval_metrics(q, g, query_places, gallery_places, memory=memory)
    ks = [k for k in (1, 5, 10) if k <= gallery]
    assert means(fast) == pytest.approx(oracle(q @ g.T, query_places, gallery_places, ks), abs=1e-9)
    assert fast["queries_without_relevant"] > 0


@pytest.mark.parametrize("siblings", [1, 30])
def test_constant_embeddings_find_nothing(siblings):
    gallery_places = np.repeat([f"{i}" for i in range(20)], siblings)
    x = torch.eye(8)[:1]
    metrics = retrieval_metrics(
        x.expand(20, 8), x.expand(len(gallery_places), 8), gallery_places[::siblings], gallery_places
    )
    assert metrics["R@1"] == metrics["R@10"] == 0


def test_order_of_the_gallery_does_not_matter():
    q, g, query_places, gallery_places = world(5, 50, 400, 9)
    shuffled = np.random.default_rng(0).permutation(400)
    again = retrieval_metrics(q, g[torch.from_numpy(shuffled)], query_places, gallery_places[shuffled])
    assert again == retrieval_metrics(q, g, query_places, gallery_places)


def test_metrics_of_a_known_ranking():
    # One query; references by falling score: wrong, right, right, wrong.
    q, g = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    metrics = retrieval_metrics(q, g, np.array(["a"]), np.array(["b", "a", "a", ""]), ks=[1, 2])
    assert means(metrics) == pytest.approx(
        {
            "R@1": 0.0,
            "R@2": 100.0,
            "R@1%": 0.0,
            "AP": 100 * ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2,
            "AP_standard": 100 * (1 / 2 + 2 / 3) / 2,
            "queries": 1,
            "gallery": 4,
            "queries_without_relevant": 0,
        }
    )


def test_single_relevant_reference_scores_half_the_usual_ap_except_at_the_top():
    trapezoid, standard = average_precision(np.array([[0], [1], [9], [3]]), np.array([1, 1, 1, 0]))
    assert trapezoid.tolist() == pytest.approx([1, 0.25, 0.05, 0])
    assert standard.tolist() == pytest.approx([1, 0.5, 0.1, 0])


def test_one_percent_is_a_hundredth_of_the_gallery():
    gallery_places = np.array([f"{i}" for i in range(951)])
    g = torch.linspace(1, 0, 951)[:, None]  # reference i has rank i for the query 1
    places = np.array(["9", "10"])  # a hundredth of 951 is 10: ranks 0 to 9
    assert retrieval_metrics(torch.ones(2, 1), g, places, gallery_places)["R@1%"] == 50


def test_shards_of_queries_add_up():
    q, g, query_places, gallery_places = world(3, 90, 60, 20)
    whole = query_results(q, g, of_places(query_places, gallery_places))
    parts = [
        query_results(q[s], g, of_places(query_places[s], gallery_places))
        for s in (slice(0, 31), slice(31, 90))
    ]
    for name in ("first_rank", "ap", "ap_standard", "spot"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert summarize(whole, 60) == retrieval_metrics(q, g, query_places, gallery_places)


def test_default_ks_fit_the_gallery_and_a_k_that_does_not_is_refused():
    q, g = torch.eye(6), torch.eye(6)
    places = np.array(list("abcdef"))
    assert {"R@1", "R@5"} < set(metrics := retrieval_metrics(q, g, places, places))
    assert "R@10" not in metrics
    with pytest.raises(InputError, match=r"k = 10 .* gallery of 6"):
        retrieval_metrics(q, g, places, places, ks=[1, 10])
    with pytest.raises(InputError, match=r"k = 7 .* gallery of 6"):
        summarize(query_results(q, g, of_places(places, places)), 6, ks=[7])


@pytest.mark.parametrize("queries", [0, 2])
def test_no_query_with_a_relevant_reference_is_refused(queries):
    x, places = torch.eye(2), np.array(["a", ""])
    with pytest.raises(InputError, match=f"none of the {queries} queries"):
        retrieval_metrics(x[:queries], x, places[:queries], np.array(["b", ""]))


def test_geodesic_error():
    quarter = np.pi * 6_371_008.8 / 2
    latitude, longitude = np.array([0.0, 90.0, 0.0, 48.0]), np.array([0.0, 10.0, 179.0, 7.0])
    true_latitude, true_longitude = np.array([0.0, 0.0, 0.0, 48.0]), np.array([90.0, 77.0, -179.0, 7.0])
    error = geodesic_error_m(latitude, longitude, true_latitude, true_longitude)
    assert error == pytest.approx([quarter, quarter, quarter / 45, 0])
    # One metre is resolved: 1e-5 degrees of latitude are 1.112 m.
    assert geodesic_error_m(np.array([48.00001]), np.array([7.0]), np.array([48.0]), np.array([7.0])) == (
        pytest.approx([1.11195], rel=1e-4)
    )
    assert np.isnan(geodesic_error_m(np.array([np.nan]), np.zeros(1), np.zeros(1), np.zeros(1)))
