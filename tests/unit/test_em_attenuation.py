"""The attenuation against a dense matrix inverse square root."""

import pytest
import torch

from cvgl_ray.em.adapters import Attenuation
from cvgl_ray.em.closed_form import fit_attenuation, pair_attenuation

D = 12


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def differences(count, dimension=D):
    """Rows of clearly different spread along (rotated) axes."""
    rotation = torch.linalg.qr(torch.randn(dimension, dimension))[0]
    return (torch.randn(count, dimension) * torch.logspace(0, -1.5, dimension)) @ rotation


def dense(rows, shrinkage, rank=D):
    """sqrt(a m) ((1 - a) S + a m I)^(-1/2) in float64, 1 beyond the strongest `rank` directions: [D, D]."""
    rows = rows.double()
    count, dimension = rows.shape
    covariance = rows.T @ rows / (2 * count)
    floor = shrinkage * covariance.trace() / min(count, dimension)
    values, vectors = torch.linalg.eigh((1 - shrinkage) * covariance + floor * torch.eye(dimension))
    factors = torch.sqrt(floor / values)
    factors[: max(0, dimension - rank)] = 1.0  # eigh's values rise: the weakest come first
    return vectors @ torch.diag(factors) @ vectors.T


def fitted(rows, shrinkage, rank=D):
    adapter = Attenuation(rows.shape[1], rank, norm="none")
    fit_attenuation(adapter, rows, shrinkage)
    return adapter


def matrix(adapter):
    """What `encode` multiplies a column with: [D, D]."""
    return adapter.encode(torch.eye(adapter.dimension)).T.double()


@pytest.mark.parametrize("count", [1, 5, D, 40])
@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
@pytest.mark.parametrize("rank", [3, D, 50])
def test_the_map_is_the_shrunk_inverse_square_root(count, shrinkage, rank):
    rows = differences(count)
    expected = dense(rows, shrinkage, rank)
    torch.testing.assert_close(matrix(fitted(rows, shrinkage, rank)), expected, atol=2e-5, rtol=0)
    assert torch.linalg.matrix_norm(expected - torch.eye(D, dtype=torch.float64), 2) > 0.25


def test_directions_are_orthonormal_and_the_strongest_comes_first():
    directions, factors = pair_attenuation(differences(7), 0.3, 5)
    torch.testing.assert_close(directions @ directions.T, torch.eye(5), atol=1e-5, rtol=0)
    assert (factors.diff() > 0).all()
    assert ((factors > 0) & (factors < 1)).all()


def test_pairs_whose_scale_differs_are_attenuated_alike():
    """The floor is relative, so that no backbone's cosine scale matters."""
    rows = differences(20)
    torch.testing.assert_close(matrix(fitted(100 * rows, 0.5)), matrix(fitted(rows, 0.5)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("rows", "shrinkage"),
    [(differences(30), 1.0), (torch.zeros(0, D), 0.5), (torch.zeros(6, D), 0.5)],
    ids=["full shrinkage", "no pair", "no difference"],
)
def test_nothing_to_attenuate_is_the_identity(rows, shrinkage):
    torch.testing.assert_close(matrix(fitted(rows, shrinkage)), torch.eye(D, dtype=torch.float64))


def test_the_map_keeps_what_is_outside_its_span_and_can_be_inverted():
    rows = differences(5)
    adapter = fitted(rows, 0.2)
    span, factors = adapter.directions[:5], adapter.factors[:5]
    inside = torch.randn(4, 5) @ span
    outside = torch.randn(4, D)
    outside -= outside @ span.T @ span
    torch.testing.assert_close(adapter.encode(outside), outside, atol=1e-5, rtol=0)
    torch.testing.assert_close(adapter.encode(inside) @ span.T, inside @ span.T * factors, atol=1e-5, rtol=0)
    features = torch.randn(9, D)
    code = adapter.encode(features)
    recovered = code + ((code @ span.T) * (1 / factors - 1)) @ span
    torch.testing.assert_close(recovered, features, atol=1e-5, rtol=0)


def test_a_fit_replaces_the_one_before():
    few, many = differences(3), differences(9)
    once, twice = fitted(few, 0.5), fitted(many, 0.1)
    fit_attenuation(twice, few, 0.5)
    torch.testing.assert_close(twice.state_dict(), once.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["view", "none"])
def test_untrained_it_is_the_normalised_feature(norm):
    adapter = Attenuation(D, 4, norm=norm, centre=0.1 * torch.randn(2, D))
    features = torch.randn(6, D)
    for view in (0, 1):
        torch.testing.assert_close(adapter(features, view), adapter.normalise(features, view))
    assert not list(adapter.parameters())  # nothing is learned by gradient
