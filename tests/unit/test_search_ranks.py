import numpy as np
import pytest
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.search.ranks import of_pairs, of_places, relevant_ranks
from cvgl_ray.search.topk import check_embeddings, check_k, top_k


def test_top_k_equals_a_full_sort():
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(13, 8, generator=generator), torch.randn(40, 8, generator=generator)
    indices, scores = top_k(query, gallery, 5)
    full = query.double() @ gallery.double().T
    order = np.argsort(-full.numpy(), axis=1)[:, :5]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(full.numpy(), order, axis=1), rtol=1e-5, atol=1e-6)


def test_top_k_of_no_query_is_empty():
    indices, scores = top_k(torch.zeros(0, 3), torch.eye(3), 2)
    assert indices.shape == scores.shape == (0, 2)
    assert indices.dtype == torch.int64


@pytest.mark.parametrize("k", [0, 4])
def test_k_that_the_gallery_cannot_give_is_refused(k):
    with pytest.raises(InputError, match=f"k = {k} .* gallery of 3 references"):
        top_k(torch.eye(3), torch.eye(3), k)
    with pytest.raises(InputError, match=f"k = {k} "):
        check_k(k, 3)


def test_relevant_ranks_by_hand():
    query = torch.tensor([[1.0], [-1.0], [1.0]])
    gallery = torch.tensor([[0.4], [0.3], [0.2], [0.2], [0.1]])
    places = of_places(np.array(["a", "b", ""]), np.array(["a", "b", "a", "", "a"]))
    (ranks, n), *rest = relevant_ranks(query, gallery, places)
    assert rest == []
    assert n.tolist() == [3, 1, 0]
    assert ranks[0].tolist() == [0, 3, 4]  # the distractor of the same score goes before the second "a"
    assert ranks[1, :1].tolist() == [3]


def test_pairs_say_the_same_as_places():
    query, gallery = torch.tensor([[1.0], [-1.0], [1.0]]), torch.tensor([[0.4], [0.3], [0.2], [0.2], [0.1]])
    pairs = of_pairs(np.array([1, 0, 0, 0]), np.array([1, 4, 0, 2]), 3)
    ((ranks, n),) = relevant_ranks(query, gallery, pairs)
    assert n.tolist() == [3, 1, 0]
    assert ranks[0].tolist() == [0, 3, 4]
    assert ranks[1, :1].tolist() == [3]
    ((ranks, n),) = relevant_ranks(query, gallery, of_pairs(*[np.zeros(0, np.int64)] * 2, 3))
    assert n.tolist() == [0, 0, 0]


def test_references_of_one_spot_count_once_at_the_rank_of_their_best():
    query = torch.tensor([[1.0], [1.0]])
    gallery = torch.tensor([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]])
    spots = np.array(["x", "x", "y", "z", "y", "z"])
    pairs = of_pairs(np.array([0, 0, 1, 1]), np.array([5, 3, 2, 5]), 2)  # z; y and z
    ((ranks, n),) = relevant_ranks(query, gallery, pairs, spots)
    assert n.tolist() == [1, 2]
    assert ranks[0, 0] == 2  # behind x and y, not behind three images
    assert ranks[1].tolist() == [1, 2]


def test_spots_of_one_image_each_change_nothing():
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(7, 4, generator=generator), torch.randn(20, 4, generator=generator)
    pairs = of_pairs(np.arange(14) // 2, np.arange(14), 7)
    for (own, _), (other, _) in zip(
        relevant_ranks(query, gallery, pairs),
        relevant_ranks(query, gallery, pairs, np.arange(20)[::-1]),
        strict=True,
    ):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_embeddings_that_are_not_finite_are_refused(side, value):
    pair = [torch.eye(3), torch.eye(3)]
    pair[side][1] = value
    with pytest.raises(
        InputError, match=f"1 of 3 {('query', 'reference')[side]} embeddings hold NaN or infinity"
    ):
        check_embeddings(*pair)


def test_embeddings_of_two_widths_and_an_empty_gallery_are_refused():
    with pytest.raises(InputError, match="queries have 3 dimensions and the references 4"):
        check_embeddings(torch.eye(3), torch.eye(4))
    with pytest.raises(InputError, match="holds no reference"):
        top_k(torch.eye(3), torch.zeros(0, 3), 1)
