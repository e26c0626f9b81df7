"""Neighbourhoods against NumPy loops, and an ambiguity that only neighbours resolve."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.em.neighbourhood import (
    ITERATIONS,
    SCALE_NEIGHBOURS,
    SINKHORN_ITERATIONS,
    SINKHORN_TEMPERATURE,
    neighbourhood_scores,
    sinkhorn,
    view_graph,
)
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.csls import csls


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


def naive_csls(matrix, neighbours):
    of_row = [np.mean(sorted(row)[-neighbours:]) for row in matrix]
    of_column = [np.mean(sorted(column)[-neighbours:]) for column in matrix.T]
    return 2 * matrix - np.array(of_row)[:, None] - np.array(of_column)[None, :]


def naive_sinkhorn(logits):
    match = np.exp(logits)
    for _ in range(SINKHORN_ITERATIONS):
        match = match / match.sum(0, keepdims=True)
        match = match / match.sum(1, keepdims=True)
    return match


def naive_scores(scores, graph_q, graph_r, weight):
    def z(matrix):
        return (matrix - matrix.mean()) / max(matrix.std(), 1e-12)

    total = z(scores)
    for _ in range(ITERATIONS):
        around = graph_q @ naive_sinkhorn(total / SINKHORN_TEMPERATURE) @ graph_r.T
        total = z(scores) + weight * z(naive_csls(around, SCALE_NEIGHBOURS))
    return total


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 40])
def test_a_view_graph_equals_a_dense_oracle(count):
    features = rows(count, seed=count)
    graph = view_graph(features)
    assert graph.dtype == np.float32
    np.testing.assert_allclose(graph.toarray(), naive_graph(features), atol=1e-5)
    if count > 2:
        np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-5)
    assert not graph.diagonal().any()


def test_a_row_that_is_like_no_other_has_no_neighbour():
    graph = view_graph(np.float32([[1, 0], [0.6, 0.8], [-1, 0], [0.8, 0.6]])).toarray()
    np.testing.assert_allclose(graph.sum(1), [1, 1, 0, 1], atol=1e-6)
    assert not graph[:, 2].any()


def test_identical_rows_are_each_others_neighbours():
    graph = view_graph(np.tile(np.float32([0.6, 0.8]), (7, 1)))
    assert not graph.diagonal().any()
    np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("sizes", [(23, 23), (30, 8), (6, 25), (4, 1), (1, 1)])
def test_neighbourhood_scores_equal_a_naive_oracle(sizes):
    query, reference = rows(sizes[0], seed=1), rows(sizes[1], seed=2)
    scores = query @ reference.T
    found = neighbourhood_scores(torch.from_numpy(scores), (view_graph(query), view_graph(reference)), 0.7)
    expected = naive_scores(scores.astype(np.float64), naive_graph(query), naive_graph(reference), 0.7)
    assert found.shape == sizes
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_csls_and_sinkhorn_equal_loops():
    matrix = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_allclose(2 * csls(torch.from_numpy(matrix), 3).numpy(), naive_csls(matrix, 3))  # halved
    np.testing.assert_allclose(2 * csls(torch.from_numpy(matrix), 99).numpy(), naive_csls(matrix, 99))
    match = sinkhorn(torch.from_numpy(matrix), SINKHORN_ITERATIONS).numpy()
    np.testing.assert_allclose(match, naive_sinkhorn(matrix))
    np.testing.assert_allclose(match.sum(1), 1)
    np.testing.assert_allclose(match.sum(0), 9 / 4, rtol=1e-3)


def test_sinkhorn_of_one_certain_pair_among_many_stays_finite():
    logits = torch.zeros(40, 30)
    logits[3, 4] = 3000.0
    match = sinkhorn(logits, SINKHORN_ITERATIONS)
    assert match.isfinite().all()
    assert match[3].argmax() == 4
    torch.testing.assert_close(match.sum(1), torch.ones(40))


def block_graph(groups):
    """Everyone in a group is everyone else's neighbour."""
    same = np.equal.outer(groups, groups) & ~np.eye(len(groups), dtype=bool)
    return scipy.sparse.csr_array((same / same.sum(1, keepdims=True)).astype(np.float32))


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
