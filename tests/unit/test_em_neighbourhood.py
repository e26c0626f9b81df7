"""Neighbourhoods against NumPy loops, and an ambiguity that only neighbours resolve."""

import math

import numpy as np
import pytest
import scipy.sparse

from cvgl_ray.em import neighbourhood
from cvgl_ray.em.graphs import ordered, view_graph
from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.em.neighbourhood import (
    ITERATIONS,
    SCALE_NEIGHBOURS,
    SINKHORN_ITERATIONS,
    SINKHORN_TEMPERATURE,
    neighbourhood_scores,
    sinkhorn,
)
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.sparse import Pairs


def rows(count, seed=0, dimension=6, offset=0.4):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)) + offset)


def naive_graph(features):
    count = len(features)
    cosine = features.astype(np.float64) @ features.T.astype(np.float64)
    links = np.zeros((count, count))
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=lambda j: -cosine[i, j])
        for j in others[: math.ceil(math.sqrt(count))]:
            links[i, j] = links[j, i] = max(cosine[i, j], 0)
    sums = links.sum(1, keepdims=True)
    return links / np.where(sums > 0, sums, 1)


def natural(graph):
    """Its links by the view's own numbers."""
    return graph.links[graph.place][:, graph.place]


def naive_csls(matrix, neighbours, there):
    """There [n, m]: which entries count, in the rows' and columns' scale too."""
    means = []
    for side, mask in ((matrix, there), (matrix.T, there.T)):
        means.append([np.mean(sorted(row[of])[-neighbours:]) for row, of in zip(side, mask, strict=True)])
    return matrix - np.array(means[0])[:, None] / 2 - np.array(means[1])[None, :] / 2


def naive_sinkhorn(logits, there):
    match = np.where(there, np.exp(logits), 0)
    for _ in range(SINKHORN_ITERATIONS):
        match = match / match.sum(0, keepdims=True)
        match = match / match.sum(1, keepdims=True)
    return match


def naive_scores(scores, graph_q, graph_r, weight, there):
    def z(matrix):
        return (matrix - matrix[there].mean()) / max(matrix[there].std(), 1e-12)

    total = z(scores)
    for _ in range(ITERATIONS):
        around = graph_q @ naive_sinkhorn(total / SINKHORN_TEMPERATURE, there) @ graph_r.T
        total = z(scores) + weight * z(naive_csls(around, SCALE_NEIGHBOURS, there))
    return total


def pairs_at(scores, there):
    query, reference = np.nonzero(there)
    return Pairs(query.astype(np.int32), reference.astype(np.int32), np.float32(scores[there]), scores.shape)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 40])
def test_a_view_graph_equals_a_dense_oracle(count):
    features = rows(count, seed=count)
    graph = natural(view_graph(features))
    assert graph.dtype == np.float32
    np.testing.assert_allclose(graph.toarray(), naive_graph(features), atol=1e-5)
    if count > 2:
        np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-5)
    assert not graph.diagonal().any()


def test_a_row_that_is_like_no_other_has_no_neighbour():
    graph = natural(view_graph(np.float32([[1, 0], [0.6, 0.8], [-1, 0], [0.8, 0.6]]))).toarray()
    np.testing.assert_allclose(graph.sum(1), [1, 1, 0, 1], atol=1e-6)
    assert not graph[:, 2].any()


def test_identical_rows_are_each_others_neighbours():
    graph = view_graph(np.tile(np.float32([0.6, 0.8]), (7, 1))).links
    assert not graph.diagonal().any()
    np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("sizes", [(23, 23), (30, 8), (6, 25), (4, 1), (1, 1)])
def test_neighbourhood_scores_equal_a_naive_oracle(sizes, share):
    query, reference = rows(sizes[0], seed=1), rows(sizes[1], seed=2)
    scores = query @ reference.T
    there = np.random.default_rng(3).random(sizes) < share
    there[np.arange(max(sizes)) % sizes[0], np.arange(max(sizes)) % sizes[1]] = True  # each row has a pair
    links = natural(view_graph(query)), natural(view_graph(reference))
    found = neighbourhood_scores(pairs_at(scores, there), links, 0.7)
    expected = naive_scores(scores.astype(np.float64), naive_graph(query), naive_graph(reference), 0.7, there)
    np.testing.assert_allclose(found.values, expected[there], atol=2e-3)


def test_sinkhorn_equals_a_loop_and_one_certain_pair_among_many_stays_finite():
    matrix, everywhere = np.random.default_rng(0).normal(size=(9, 4)), np.ones((9, 4), bool)
    match = sinkhorn(pairs_at(matrix, everywhere), SINKHORN_ITERATIONS).values.reshape(9, 4)
    np.testing.assert_allclose(match, naive_sinkhorn(matrix, everywhere), rtol=1e-4)
    np.testing.assert_allclose(match.sum(1), 1, rtol=1e-5)
    logits = np.zeros((40, 30))
    logits[3, 4] = 3000.0
    match = sinkhorn(pairs_at(logits, np.ones((40, 30), bool)), SINKHORN_ITERATIONS).values.reshape(40, 30)
    assert np.isfinite(match).all()
    assert match[3].argmax() == 4
    np.testing.assert_allclose(match.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("scores", ["cosine", "csls"])
def test_few_candidates_find_what_all_find_where_matches_are_clear(scores, monkeypatch):
    rng = np.random.default_rng(0)
    places = rng.normal(size=(400, 32))
    query, reference = (unit_rows(places + 0.45 * rng.normal(size=places.shape)) for _ in range(2))
    graphs = view_graph(query), view_graph(reference)
    found = []
    for full in (2**18, 0):  # all pairs, CANDIDATES of each row
        monkeypatch.setattr(neighbourhood, "FULL", full)
        found.append(pseudo_labels(query, reference, scores=scores, neighbourhood=0.3, graphs=graphs))
    assert (found[0].best_of_query == found[1].best_of_query).mean() > 0.99
    np.testing.assert_allclose(found[0].cosine, (query * reference[found[0].best_of_query]).sum(1), atol=1e-5)
    same = found[0].best_of_query == found[1].best_of_query
    np.testing.assert_allclose(found[0].cosine[same], found[1].cosine[same], atol=1e-6)


def block_graph(groups):
    """Everyone in a group is everyone else's neighbour."""
    same = np.equal.outer(groups, groups) & ~np.eye(len(groups), dtype=bool)
    return ordered(scipy.sparse.csr_array((same / same.sum(1, keepdims=True)).astype(np.float32)))


def test_neighbours_resolve_an_ambiguous_match():
    """Query 0 looks a little more like place 4, in the other district, than like its own place 0."""
    reference = np.eye(8, dtype=np.float32)
    query = reference.copy()
    query[0, [0, 4]] = 0.7, 0.72
    query = unit_rows(query)
    districts = np.repeat([0, 1], 4)
    astray = districts.copy()
    astray[0] = 1

    def best_of_query(weight, groups):
        graphs = block_graph(groups), block_graph(districts)
        return pseudo_labels(
            query, reference, scores="cosine", match="argmax", neighbourhood=weight, graphs=graphs
        ).of_query

    np.testing.assert_array_equal(best_of_query(0.3, districts), np.arange(8))
    for weight, groups in ((0.0, districts), (0.3, astray)):
        np.testing.assert_array_equal(best_of_query(weight, groups), [4, *range(1, 8)])
