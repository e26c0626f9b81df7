"""The adapter, its normalisation and the embedding of whole feature matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cvgl_ray.em.adapters import GlobalBatchNorm, LinearAdapter, embed, take
from cvgl_ray.features.views import QUERY, REFERENCE, unit_rows, view_mean


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features(count=10, dimension=8, shift=2.0):
    return torch.randn(count, dimension) + shift


@pytest.mark.parametrize("view", [QUERY, REFERENCE])
def test_round_zero_sees_the_centred_frozen_features(view):
    rows = features()
    centre = torch.randn(2, 8)
    z = LinearAdapter(8, centre=centre)(rows, view)
    torch.testing.assert_close(z, F.normalize(F.normalize(rows, dim=-1) - centre[view], dim=-1))
    torch.testing.assert_close(
        LinearAdapter(8, norm="none", centre=centre)(rows, view), F.normalize(rows, dim=-1)
    )


def test_narrow_and_wide_identity():
    rows = features()
    unit = F.normalize(rows, dim=-1)
    wide = LinearAdapter(8, 11, norm="none")
    z = wide(rows, QUERY)
    torch.testing.assert_close(z[:, :8], unit)
    assert not z[:, 8:].any()
    torch.testing.assert_close(wide.decode(wide.encode(unit)), unit)
    narrow = LinearAdapter(8, 5, norm="none")
    torch.testing.assert_close(narrow(rows, QUERY), F.normalize(unit[:, :5], dim=-1))
    torch.testing.assert_close(narrow.decode(narrow.encode(unit))[:, :5], unit[:, :5])


def test_residual_adds_the_feature_to_the_code():
    plain, residual = (
        LinearAdapter(8, norm="none", init="random"),
        LinearAdapter(8, norm="none", residual=True),
    )
    residual.load_state_dict(plain.state_dict())
    unit = F.normalize(features(), dim=-1)
    torch.testing.assert_close(residual.encode(unit), plain.encode(unit) + unit)


def test_random_init_is_no_identity_and_embeddings_are_unit_rows():
    adapter = LinearAdapter(8, 6, init="random", norm="batch")
    z = adapter(features(), QUERY)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(10))
    assert not torch.equal(adapter.encoder.weight, torch.eye(6, 8))


def test_global_batch_norm_is_torchs_in_training_and_evaluation():
    ours, theirs = GlobalBatchNorm(6), torch.nn.BatchNorm1d(6)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(0.5, 2, 6))
            norm.bias.copy_(torch.linspace(-1, 1, 6))
    for _ in range(3):
        rows = 3 * torch.randn(7, 6) + 1
        inputs = [rows.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(x) for norm, x in zip((ours, theirs), inputs, strict=True)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            (output * torch.linspace(-1, 2, 6)).square().sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))


def test_a_filler_row_does_not_count_in_the_statistics():
    rows = torch.randn(5, 6)
    filled = torch.cat([rows, 100 * torch.ones(2, 6)])
    valid = torch.tensor([True] * 5 + [False] * 2)
    one, two = GlobalBatchNorm(6), GlobalBatchNorm(6)
    torch.testing.assert_close(one(rows), two(filled, valid)[:5])
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_looking_does_not_move_the_running_statistics():
    adapter = LinearAdapter(8, norm="batch")
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    matrix = features().numpy()
    adapter.train()
    embed(adapter, matrix, QUERY)
    torch.testing.assert_close(adapter.state_dict(), before, rtol=0, atol=0)
    adapter(torch.from_numpy(matrix), QUERY)
    assert not torch.equal(adapter.encoder_norm.running_mean, before["encoder_norm.running_mean"])


@pytest.mark.parametrize("norm", ["view", "batch"])
def test_embedding_in_chunks_changes_nothing(norm):
    adapter = LinearAdapter(8, 5, norm=norm, init="random")
    matrix = features(23).numpy().astype(np.float16)
    rows = np.array([22, 0, 5, 5, 9])
    for mode in (True, False):
        adapter.train(mode)
        whole = embed(adapter, matrix, REFERENCE, chunk=100)
        np.testing.assert_allclose(embed(adapter, matrix, REFERENCE, chunk=4), whole, atol=1e-6)
        assert embed(adapter, matrix, REFERENCE, rows[:0]).shape == (0, 5)
    np.testing.assert_allclose(embed(adapter, matrix, REFERENCE, rows, chunk=2), whole[rows], atol=1e-6)
    assert whole.dtype == np.float32


def test_take_reads_a_read_only_matrix():
    matrix = np.arange(12, dtype=np.float16).reshape(4, 3)
    matrix.setflags(write=False)
    taken = take(matrix, np.array([2, 0]), "cpu")
    torch.testing.assert_close(taken, torch.tensor([[6.0, 7, 8], [0, 1, 2]]))


def test_view_mean_is_the_mean_of_unit_rows():
    matrix = (np.random.default_rng(0).normal(size=(50, 6)) + 1).astype(np.float16)
    exact = matrix.astype(np.float64)
    expected = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).mean(0)
    for chunk in (1, 7, 1000):
        mean = view_mean(matrix, chunk)
        assert mean.dtype == np.float32
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_a_zero_row_stays_zero():
    np.testing.assert_array_equal(unit_rows(np.array([[0, 0], [3, 4]])), np.float32([[0, 0], [0.6, 0.8]]))
    assert not LinearAdapter(2, norm="none")(torch.zeros(1, 2), QUERY).any()
