"""Index and matching against dense score matrices."""

import numpy as np
import pytest

from cvgl_ray.em import asked as asked_module
from cvgl_ray.em.asked import labels_of_asked
from cvgl_ray.em.graphs import view_graph
from cvgl_ray.em.matching import PseudoLabels, is_mutual, pseudo_labels
from cvgl_ray.em.neighbourhood import neighbourhood_scores
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.approximate import build_index, search
from cvgl_ray.search.csls import hubness
from cvgl_ray.search.sparse import Pairs
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import found_by_index, local


def rows(count, dimension=12, seed=0, offset=0.0):
    rng = np.random.default_rng((seed, count, dimension))
    return unit_rows(rng.normal(size=(count, dimension)) + offset)


def dense_scores(query, reference, scores, neighbours):
    """[nq, nr]: the cosine, or CSLS as its paper writes it: 2 s - r(q) - r(r)."""
    cosine = query.astype(np.float64) @ reference.astype(np.float64).T
    if scores == "cosine":
        return cosine
    of_query = [np.mean(sorted(row)[-neighbours:]) for row in cosine]
    of_reference = [np.mean(sorted(column)[-neighbours:]) for column in cosine.T]
    return 2 * cosine - np.array(of_query)[:, None] - np.array(of_reference)[None, :]


def naive_labels(cosine, score, match, threshold):
    """(of_query, of_reference) by loops over a dense score matrix."""
    best_q, best_r = score.argmax(1), score.argmax(0)
    room_q, room_r = (max(1, round(a / b)) for a, b in (score.shape[::-1], score.shape))
    of_query, of_reference = np.full(len(best_q), -1), np.full(len(best_r), -1)
    for q, r in enumerate(best_q):
        accepts = match == "argmax" or (score[:, r] > score[q, r]).sum() < room_r
        if cosine[q, r] > threshold and accepts:
            of_query[q] = r
    for r, q in enumerate(best_r):
        accepts = match == "argmax" or (score[q] > score[q, r]).sum() < room_q
        if cosine[q, r] > threshold and accepts:
            of_reference[r] = q
    return of_query, of_reference


@pytest.mark.parametrize("sizes", [(40, 40), (57, 13), (9, 64), (20, 1), (1, 20), (1, 1)])
@pytest.mark.parametrize("scores", ["cosine", "csls"])
@pytest.mark.parametrize("match", ["argmax", "mutual"])
def test_pseudo_labels_equal_a_dense_oracle(sizes, scores, match):
    query, reference = rows(sizes[0], seed=1, offset=0.3), rows(sizes[1], seed=2, offset=0.3)
    cosine = query @ reference.T
    score = dense_scores(query, reference, scores, neighbours=5)
    threshold = float(np.median(cosine.max(1))) if sizes[0] > 1 else -1.0
    labels = pseudo_labels(query, reference, scores=scores, neighbours=5, match=match, threshold=threshold)
    of_query, of_reference = naive_labels(cosine, score, match, threshold)
    np.testing.assert_array_equal(labels.best_of_query, score.argmax(1))
    np.testing.assert_array_equal(labels.best_of_reference, score.argmax(0))
    np.testing.assert_array_equal(labels.of_query, of_query)
    np.testing.assert_array_equal(labels.of_reference, of_reference)
    np.testing.assert_allclose(
        labels.cosine, cosine[np.arange(len(query)), labels.best_of_query], rtol=1e-5, atol=1e-6
    )
    assert len(labels.examples) == min(6, sizes[0])
    for row, *shown in labels.examples:
        np.testing.assert_array_equal(shown, np.argsort(-score[row], kind="stable")[:5])
    if sizes[1] > 1:
        second, best = np.sort(score / (2 if scores == "csls" else 1), axis=1)[:, -2:].T
        np.testing.assert_allclose(labels.margin, best - second, atol=1e-5)
    else:
        assert not labels.margin.any()


@pytest.mark.parametrize("sizes", [(40, 40), (57, 13), (16, 64)])
@pytest.mark.parametrize("scores", ["cosine", "csls"])
@pytest.mark.parametrize("match", ["argmax", "mutual"])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # any name but "cpu" takes the path of a GPU
def test_queries_that_are_asked_alone_get_the_labels_they_get_among_all(
    monkeypatch, sizes, scores, match, device
):
    monkeypatch.setattr(asked_module, "SHORTLIST", 64)  # so that no candidate is missed
    query, reference = rows(sizes[0], seed=1, offset=0.3), rows(sizes[1], seed=2, offset=0.3)
    policy = {"scores": scores, "neighbours": 5, "match": match, "threshold": 0.2}
    everyone = pseudo_labels(query, reference, **policy)
    asked = np.arange(0, sizes[0], 3)
    some = labels_of_asked(query, reference, asked, **policy, device=device)
    for name in ("of_query", "best_of_query"):
        np.testing.assert_array_equal(getattr(some, name), getattr(everyone, name)[asked])
    for name in ("cosine", "margin"):
        np.testing.assert_allclose(getattr(some, name), getattr(everyone, name)[asked], atol=1e-6)
    assert is_mutual(some.best_of_query, some.best_of_reference).sum() == (
        is_mutual(everyone.best_of_query, everyone.best_of_reference)[asked].sum()
        if scores == "csls" or match == "mutual"
        else 0
    )


@pytest.mark.parametrize("sizes", [(31, 12), (25, 25), (9, 20)])
@pytest.mark.parametrize("scores", ["cosine", "csls"])
def test_pseudo_labels_of_neighbourhoods_equal_a_dense_oracle(sizes, scores):
    query, reference = rows(sizes[0], seed=1, offset=0.3), rows(sizes[1], seed=2, offset=0.3)
    graphs = view_graph(query), view_graph(reference)
    dense = dense_scores(query, reference, scores, neighbours=4).astype(np.float32)
    places = (part.ravel().astype(np.int32) for part in np.indices(sizes))
    links = tuple(graph.links[graph.place][:, graph.place] for graph in graphs)  # by the views' own numbers
    score = neighbourhood_scores(Pairs(*places, dense.ravel(), sizes), links, 0.5).values.reshape(sizes)
    labels = pseudo_labels(
        query, reference, scores=scores, neighbours=4, threshold=0.2, neighbourhood=0.5, graphs=graphs
    )
    of_query, of_reference = naive_labels(query @ reference.T, score, "mutual", 0.2)
    np.testing.assert_array_equal(labels.best_of_query, score.argmax(1))
    np.testing.assert_array_equal(labels.best_of_reference, score.argmax(0))
    np.testing.assert_array_equal(labels.of_query, of_query)
    np.testing.assert_array_equal(labels.of_reference, of_reference)
    second, best = np.sort(score, axis=1)[:, -2:].T
    np.testing.assert_allclose(labels.margin, best - second, atol=1e-3)
    assert (pseudo_labels(query, reference, scores=scores).best_of_query != labels.best_of_query).any()


@pytest.mark.parametrize("scores", ["cosine", "csls"])
def test_mutual_keeps_all_images_of_a_place(scores):
    """Three queries a place: each reference has room for three, unless distractors leave room for one."""
    places = np.eye(4, 12)
    query = np.repeat(places, 3, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(12, 12))
    distractors = np.eye(12)[4:]
    for reference, siblings in ((places, 3), (np.vstack([places, distractors]), 1)):
        labels = pseudo_labels(unit_rows(query), unit_rows(reference), scores=scores, neighbours=1)
        np.testing.assert_array_equal(labels.best_of_query, np.repeat(np.arange(4), 3))
        labelled = labels.of_query >= 0
        np.testing.assert_array_equal(labels.of_query[labelled], np.repeat(np.arange(4), siblings))
        back = pseudo_labels(unit_rows(reference), unit_rows(query), scores=scores, neighbours=1)
        np.testing.assert_array_equal(back.of_reference, labels.of_query)  # the views' roles are symmetric


def test_csls_counts_only_the_neighbours_that_exist():
    query, reference = rows(6, seed=3), rows(3, seed=4)
    cosine = query @ reference.T
    of_query, _ = local(query, reference).nearest(10, 10)
    np.testing.assert_allclose(hubness(of_query.near), cosine.mean(1) / 2, atol=1e-6)
    fewer = Nearest(np.array([[2, 0, -1], [-1, -1, -1]]), np.array([[0.8, 0.2, -np.inf], [-np.inf] * 3]))
    np.testing.assert_allclose(hubness(fewer), [0.25, 0])


def test_csls_frees_queries_from_a_hub():
    """A reference in the middle of all queries is each one's nearest by cosine, and nobody's by CSLS."""
    places = np.eye(4, dtype=np.float32)
    hub = unit_rows(places.mean(0, keepdims=True))
    query = unit_rows(places + 1.2 * hub)
    reference = np.vstack([unit_rows(places - 0.3 * hub), hub])
    by_cosine = pseudo_labels(query, reference, scores="cosine", match="argmax")
    assert (by_cosine.of_query == 4).all()
    by_csls = pseudo_labels(query, reference, scores="csls", neighbours=4, match="argmax")
    np.testing.assert_array_equal(by_csls.of_query, np.arange(4))


def test_a_cosine_must_exceed_the_threshold():
    query = reference = np.eye(3, dtype=np.float32)
    assert (pseudo_labels(query, reference, scores="cosine", threshold=0.999).of_query >= 0).all()
    none = pseudo_labels(query, reference, scores="cosine", threshold=1.0)
    assert (none.of_query == -1).all()
    assert (none.of_reference == -1).all()
    assert [len(side) for side in none.pairs()] == [0, 0]


def test_pairs_are_global_row_ids():
    query, reference = rows(5, seed=5), rows(7, seed=6)
    query_rows, reference_rows = np.array([90, 3, 3, 41, 7]), np.arange(100, 107)
    labels = pseudo_labels(query, reference, query_rows=query_rows, reference_rows=reference_rows)
    assert (labels.of_query >= 0).any()
    for of_query, of_reference in zip(*labels.pairs(), strict=True):
        q, r = np.flatnonzero(query_rows == of_query), of_reference - 100
        assert labels.of_reference[r] in q


def test_labels_survive_tensors_also_where_their_arrays_are_read_only():
    labels = pseudo_labels(rows(8), rows(5))
    for array in vars(labels).values():
        array.setflags(write=False)  # as an object store hands them out
    back = PseudoLabels.from_tensors(labels.as_tensors())
    for name, array in vars(labels).items():
        np.testing.assert_array_equal(getattr(back, name), array)
        assert getattr(back, name).dtype == array.dtype


def test_an_index_leaves_out_the_rows_own_term():
    query, reference = rows(10, seed=7), rows(6, seed=8)
    hubness = np.linspace(0, 1, 6, dtype=np.float32)
    score = query @ reference.T - hubness
    found = found_by_index([query[:7], query[7:]], reference, hubness, 3, "Flat")
    near = found.near
    np.testing.assert_array_equal(near.ids, np.argsort(-score, axis=1)[:, :3])
    np.testing.assert_allclose(near.scores, -np.sort(-score, axis=1)[:, :3], atol=1e-6)
    np.testing.assert_allclose(near.lead(), near.scores[:, 0] - near.scores[:, 1])
    np.testing.assert_allclose(found.cosine, (query @ reference.T)[np.arange(10), near.best()], atol=1e-6)
    assert not found_by_index([query], reference, hubness, 1, "Flat").near.lead().any()


def test_mutual_means_back_where_one_began():
    forth, back = np.array([1, 0, 1, -1]), np.array([1, 3])
    np.testing.assert_array_equal(is_mutual(forth, back), [False, True, False, False])


def test_search_is_exact_and_cuts_k():
    reference, query = rows(9, seed=9), rows(4, seed=10)
    scores, ids = search(build_index(reference), query, k=50)
    np.testing.assert_array_equal(ids, np.argsort(-(query @ reference.T), axis=1))
    np.testing.assert_allclose(scores, -np.sort(-(query @ reference.T), axis=1), atol=1e-6)


def test_an_inverted_file_finds_most_of_what_is_true():
    query, reference = rows(300, dimension=4, seed=11), rows(400, dimension=4, seed=12)
    exact = pseudo_labels(query, reference)
    approximate = pseudo_labels(query, reference, factory="IVF4,Flat")
    assert (exact.best_of_query == approximate.best_of_query).mean() > 0.7


def test_an_index_that_finds_nothing_labels_nothing():
    """Few distinct rows leave empty lists, and a query that falls into one gets no answer."""
    distinct = rows(6, dimension=8, seed=13)
    query, reference = rows(200, dimension=8, seed=14), np.tile(distinct, (10, 1))
    for scores in ("cosine", "csls"):
        labels = pseudo_labels(query, reference, scores=scores, match="argmax", factory="IVF16,Flat")
        lost = labels.best_of_query < 0
        assert lost.any()
        assert (labels.of_query[lost] == -1).all()
        assert (labels.cosine[lost] == -1).all()
        assert np.isfinite(labels.margin).all()


def test_search_parameters_follow_a_semicolon():
    """All four lists searched: an inverted file is exact."""
    query, reference = rows(60, dimension=4, seed=15), rows(200, dimension=4, seed=16)
    exact, all_lists = (pseudo_labels(query, reference, factory=f) for f in ("Flat", "IVF4,Flat;nprobe=4"))
    for name, array in vars(exact).items():
        np.testing.assert_allclose(getattr(all_lists, name), array, atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("nonsense", "could not parse"),
        ("IVF64,Flat", r"points \(20\) should be at least as large as number of clusters \(64\)"),
        ("IVF4,Flat;probes=3", "could not set parameter probes"),
        ("PQ5", "multiple of the number of subquantizers"),
    ],
)
def test_a_factory_that_does_not_fit(factory, reason):
    with pytest.raises(InputError, match=f"estep.index '{factory}' does not fit 20 rows of 12.*{reason}"):
        build_index(rows(20), factory)


@pytest.mark.parametrize("neighbourhood", [0.0, 0.5])
def test_a_share_keeps_the_widest_margins(neighbourhood):
    query, reference = rows(60, seed=17), rows(20, seed=18)
    graphs = view_graph(query), view_graph(reference)
    whole, half = (
        pseudo_labels(query, reference, share=share, neighbourhood=neighbourhood, graphs=graphs)
        for share in (1.0, 0.5)
    )
    kept, all_kept = half.of_query >= 0, whole.of_query >= 0
    assert kept.sum() == pytest.approx(all_kept.sum() / 2, abs=1)
    np.testing.assert_array_equal(half.of_query[kept], whole.of_query[kept])
    assert half.margin[kept].min() >= half.margin[all_kept & ~kept].max()
    partner = half.of_reference[half.of_reference >= 0]
    assert kept[partner].all()
    np.testing.assert_array_equal(half.of_query[partner], np.flatnonzero(half.of_reference >= 0))
    nobody = pseudo_labels(query, reference, share=0.5, threshold=1.0)
    assert (nobody.of_query == -1).all()
