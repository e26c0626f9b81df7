"""A round's batches: the same everywhere, whole, and split without loss."""

import numpy as np
import pytest

from cvgl_ray.em.batches import batch_of_labels, batches_of_pairs, local_rows
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.rounds import draw_rows


def labels_of(of_query, references):
    """Pseudo-labels with given partners and row ids that are no positions."""
    of_query = np.array(of_query)
    of_reference = np.full(references, -1)
    for q, r in enumerate(of_query):
        if r >= 0:
            of_reference[r] = q
    return PseudoLabels(
        query_rows=1000 + np.arange(len(of_query)),
        reference_rows=2000 + np.arange(references),
        of_query=of_query,
        of_reference=of_reference,
        best_of_query=of_query,
        best_of_reference=of_reference,
        cosine=np.ones(len(of_query), np.float32),
        margin=np.zeros(len(of_query), np.float32),
        examples=np.zeros((0, 1), np.int64),
    )


def drawn(labels, size, steps, seed=0):
    return list(batches_of_pairs(labels, size, steps, np.random.default_rng(seed)))


def test_a_seed_decides_the_batches():
    labels = labels_of([*range(20), *range(20)], 20)
    one, same, other = (drawn(labels, 7, 9, seed) for seed in (1, 1, 2))
    for a, b in zip(one, same, strict=True):
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert any((a.query_rows != b.query_rows).any() for a, b in zip(one, other, strict=True))


def test_every_pair_is_one_of_the_labels():
    of_query = [3, -1, 3, 0, 4, 3, -1, 2, 0]  # three queries share reference 3, two share 0
    labels = labels_of(of_query, 6)
    for batch in drawn(labels, 7, 5):
        assert len(np.unique(batch.query_rows)) == len(batch.query_rows) == 7
        assert len(np.unique(batch.reference_rows)) == len(batch.reference_rows) == 4
        for q, r in enumerate(batch.of_query):
            assert batch.reference_rows[r] - 2000 == of_query[batch.query_rows[q] - 1000]
        for r, q in enumerate(batch.of_reference):
            assert batch.of_query[q] == r


def test_passes_are_reshuffled_and_see_every_query():
    batches = drawn(labels_of(range(12), 12), 4, 6)
    first, second = (np.concatenate([b.query_rows for b in batches[i : i + 3]]) for i in (0, 3))
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert (first != second).any()


def test_fewer_pairs_than_a_batch_and_none():
    assert [len(b.query_rows) for b in drawn(labels_of([0, -1, 1], 2), 512, 3)] == [2, 2, 2]
    assert [len(b.query_rows) + len(b.reference_rows) for b in drawn(labels_of([-1, -1], 2), 8, 2)] == [0, 0]


def test_an_e_step_as_a_batch_keeps_unlabelled_rows():
    labels = labels_of([1, -1, -1], 4)
    batch = batch_of_labels(labels)
    assert (len(batch.query_rows), len(batch.reference_rows)) == (3, 4)
    np.testing.assert_array_equal(batch.of_query, [1, -1, -1])
    np.testing.assert_array_equal(batch.of_reference, [-1, 0, -1, -1])


def test_draw_rows():
    rng = np.random.default_rng(0)
    assert sorted(draw_rows(5, 9, rng, replace=False)) == [0, 1, 2, 3, 4]
    assert len(set(draw_rows(50, 9, rng, replace=False))) == 9
    repeated = draw_rows(5, 40, rng, replace=True)
    assert len(repeated) == 40
    assert set(repeated) <= set(range(5))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_workers_share_a_batch_exactly(world, count):
    rows = 10 + np.random.default_rng(0).permutation(count)
    shares = [local_rows(rows, rank, world) for rank in range(world)]
    assert len({len(share) for share, _ in shares}) == 1
    np.testing.assert_array_equal(np.concatenate([share[valid] for share, valid in shares]), rows)
    for share, valid in shares:
        assert len(share) == len(valid)
        assert set(share) <= set(rows)  # a filler is some row, so that it can be looked up
    # The filler comes last, over all ranks: a row's place in the batch is its place among the gathered ones.
    assert not np.diff(np.concatenate([valid for _, valid in shares]).astype(int)).clip(min=0).any()
