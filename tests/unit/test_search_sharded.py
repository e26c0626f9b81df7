"""Shards against one index: the same nearest rows, the same pseudo-labels."""

import numpy as np
import pytest

from cvgl_ray.config import load_config
from cvgl_ray.em.graphs import view_graph
from cvgl_ray.em.rounds import RoundRows, match_by, match_rows
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search import sharded as module
from cvgl_ray.search.sharded import Ask, Block, assemble, cut, in_shards, search_shard
from cvgl_ray.search.views import local


def rows(count, seed):
    rng = np.random.default_rng((seed, count))
    return unit_rows(rng.normal(size=(count, 12)) + 0.3)


def blocked(matrix, sizes):
    """Blocks whose rows a store holds, read-only as an object store hands them out."""
    parts = np.split(matrix, np.cumsum(sizes)[:-1])
    for part in parts:
        part.setflags(write=False)
    return [Block(part, len(part)) for part in parts]


def sharded(query, reference, shards, factory="Flat"):
    """The search of blocks, all shards in this process."""

    def ask_each(ask: Ask):
        return [search_shard(number, ask, lambda part: part) for number in range(ask.shards)]

    return in_shards((query, reference), shards, factory, ask_each)


# Of the queries' and the references' blocks; and how many shards there are.
CUTS = {
    "one": ([40], [23], 1),
    "even": ([20, 20], [12, 11], 2),
    "uneven": ([1, 30, 2, 7], [15, 1, 6, 1], 3),
    "fewer_blocks_than_shards": ([39, 1], [3, 19, 1], 5),
    "more_shards_than_rows": ([1] * 6, [1, 1, 1], 9),
    "many_references_a_query": ([3, 4], [5, 17, 30], 2),
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("scores", "match"), [("cosine", "argmax"), ("csls", "mutual")])
@pytest.mark.parametrize("factory", ["Flat", "Flat;"])  # the exact search, and exact faiss indices
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_labels_by_shards_equal_those_by_one_index(cuts, scores, match, factory, weight):
    query_sizes, reference_sizes, shards = cuts
    query, reference = rows(sum(query_sizes), 1), rows(sum(reference_sizes), 2)
    settings = (f"estep.scores={scores}", f"estep.match={match}", "estep.threshold=0.2")
    config = load_config(None, (f"estep.neighbourhood={weight}", f"estep.index={factory}", *settings))
    graphs = view_graph(query), view_graph(reference)
    about = RoundRows(100 + np.arange(len(query)), np.arange(len(reference)), share=0.6)
    one = match_rows(query, reference, about, config.estep, graphs)
    search = sharded(blocked(query, query_sizes), blocked(reference, reference_sizes), shards, factory)
    several = match_by(search, about, config.estep, graphs)
    assert (several.of_query >= 0).any()
    for name, array in vars(one).items():
        if name in ("margin", "cosine"):
            np.testing.assert_allclose(getattr(several, name), array, atol=1e-4)
        else:
            np.testing.assert_array_equal(getattr(several, name), array)


@pytest.mark.parametrize("factory", ["Flat", "Flat;"])
@pytest.mark.parametrize("corrected", [False, True])
def test_each_row_finds_its_nearest_with_their_scores(factory, corrected):
    query, reference = rows(30, 3), rows(50, 4)
    rng = np.random.default_rng(5)
    hubness = (rng.random(30, dtype=np.float32), rng.random(50, dtype=np.float32)) if corrected else None
    expected = local(query, reference, factory).nearest(7, 60, hubness)
    blocks = blocked(query, [4, 26]), blocked(reference, [9, 1, 40])
    for found, side in zip(sharded(*blocks, 2, factory).nearest(7, 60, hubness), expected, strict=True):
        np.testing.assert_array_equal(found.near.ids, side.near.ids)
        np.testing.assert_allclose(found.near.scores, side.near.scores, atol=1e-6)
        np.testing.assert_array_equal(found.cosine, side.cosine)


def test_a_shard_holds_its_own_references_and_sees_one_block_of_queries_at_a_time():
    query, reference = blocked(rows(30, 6), [10, 10, 10]), blocked(rows(40, 7), [10, 10, 10, 10])
    fetched = []

    def fetch(part):
        fetched.append(part)
        return part

    search_shard(1, Ask((query, reference), 2, "Flat", 5, 5, None), fetch)
    expected = [*reference[2:], *query]
    assert [id(part) for part in fetched] == [id(block.handle) for block in expected]


def test_what_an_index_does_not_find_stays_unlabelled():
    """Few distinct rows leave empty lists in every shard, and a query that falls into one gets no answer."""
    query, reference = rows(200, 8), np.tile(rows(6, 9), (20, 1))
    config = load_config(None, ("estep.neighbourhood=0", "estep.index=IVF16,Flat", "estep.match=argmax"))
    search = sharded(blocked(query, [100, 100]), blocked(reference, [60, 60]), 2, config.estep.index)
    labels = match_by(search, RoundRows(np.arange(200), np.arange(120)), config.estep, None)
    lost = labels.best_of_query < 0
    assert lost.any()
    assert (labels.of_query[lost] == -1).all()
    assert (labels.cosine[lost] == -1).all()
    assert np.isfinite(labels.margin).all()


def test_rows_are_cut_into_bounded_blocks_and_come_back_whole(monkeypatch):
    matrix = rows(23, 10)
    for pieces, most_rows in ((1, 100), (4, 100), (1, 5), (50, 100)):
        monkeypatch.setattr(module, "BLOCK_BYTES", most_rows * matrix.shape[1] * 4)
        parts = cut(matrix, pieces)
        assert len(parts) >= min(pieces, 23)
        assert all(1 <= len(part) <= most_rows for part in parts)
        whole = assemble([Block(number, len(part)) for number, part in enumerate(parts)], parts.__getitem__)
        np.testing.assert_array_equal(whole, matrix)
    assert cut(matrix[:0], 3) == []
