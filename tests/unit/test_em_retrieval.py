"""CSLS at retrieval against its definition, and what a hub does to a cosine."""

import numpy as np
import pytest
import torch

from cvgl_ray.config import Adapter
from cvgl_ray.em import retrieval
from cvgl_ray.em.adapters import embed
from cvgl_ray.em.build import build_adapter
from cvgl_ray.em.retrieval import Retriever, banked, training_banks

DIMENSION = 12


def adapter():
    centre = torch.from_numpy(np.random.default_rng(9).normal(size=(2, DIMENSION)).astype(np.float32) / 10)
    return build_adapter(Adapter(), DIMENSION, centre, seed=0).eval()


def rows(count, seed):
    return np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)


def model(**changes):
    made = adapter()
    return Retriever(made, training_banks(made, *banked(rows(30, 1), rows(20, 2))), **changes)


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("bank", ["training", "queries"])
def test_csls_takes_half_the_mean_cosine_to_the_nearest_queries(asked, bank):
    made = model(neighbours=4, bank=bank)
    queries, gallery = rows(9, 3), rows(7, 4)
    one, other = made.sides(queries, gallery, asked)
    z_query, z_gallery = embed(made.adapter, queries, asked), embed(made.adapter, gallery, 1 - asked)
    near = z_query if bank == "queries" else made.banks[asked].astype(np.float32)
    hubness = np.array([np.sort(near @ z)[-4:].mean() for z in z_gallery]) / 2
    np.testing.assert_allclose(one @ other.T, z_query @ z_gallery.T - hubness, atol=1e-6)


def test_cosine_leaves_the_embeddings_alone():
    made = model(scores="cosine")
    one, other = made.sides(rows(9, 3), rows(7, 4))
    np.testing.assert_array_equal(one, embed(made.adapter, rows(9, 3), 0))
    np.testing.assert_array_equal(other, embed(made.adapter, rows(7, 4), 1))


def test_a_bank_is_a_sample_that_does_not_change_from_call_to_call(monkeypatch):
    monkeypatch.setattr(retrieval, "BANK_ROWS", 8)
    made = adapter()
    one, two = (training_banks(made, *banked(rows(30, 1), rows(5, 2))) for _ in range(2))
    assert (one[0].shape, one[1].shape) == ((8, DIMENSION), (5, DIMENSION))
    for bank, again in zip(one, two, strict=True):
        np.testing.assert_array_equal(bank, again)
    whole = embed(made, rows(30, 1), 0).astype(np.float16)
    assert all((row == whole).all(axis=1).any() for row in one[0])


def test_a_bank_of_fewer_rows_than_neighbours_is_used_whole():
    made = adapter()
    few = Retriever(made, training_banks(made, *banked(rows(3, 1), rows(2, 2))), neighbours=10)
    assert all(side.isfinite().all() for side in few.sides(rows(4, 3), rows(5, 4)))
