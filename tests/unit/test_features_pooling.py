"""Poolings and rings against their definitions, one number at a time."""

import math

import pytest
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.features.pooling import POOLINGS, gem, gem_signed, pool, ring_members


def tokens() -> torch.Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("power", [1.0, 3.0, 2.5])
def test_gem_equals_its_formula(power):
    found = gem(tokens(), power)
    for b, picture in enumerate(tokens().tolist()):
        for d in range(3):
            values = [max(token[d], 1e-6) for token in picture]
            expected = (sum(v**power for v in values) / len(values)) ** (1 / power)
            assert found[b, d].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("power", [1.0, 3.0, 2.5])
def test_gem_signed_equals_its_formula(power):
    found = gem_signed(tokens(), power)
    assert (found < 0).any()
    for b, picture in enumerate(tokens().tolist()):
        for d in range(3):
            moment = sum(math.copysign(abs(token[d]) ** power, token[d]) for token in picture) / 5
            expected = math.copysign(abs(moment) ** (1 / power), moment)
            assert found[b, d].item() == pytest.approx(expected, rel=1e-4)


def test_poolings_of_equal_tokens_are_that_token():
    token = torch.tensor([[0.5, 2.0, 1.0]])
    for kind in POOLINGS:
        found = pool(token[:, None].expand(1, 7, 3), token[:, None], kind)
        torch.testing.assert_close(found, token)


def test_gem_lies_between_mean_and_max():
    positive = tokens().abs()
    mean, generalised, largest = (pool(positive, None, kind) for kind in ("mean", "gem", "max"))
    assert (mean < generalised).all()
    assert (generalised < largest).all()


def test_cls_is_the_first_prefix_token():
    prefix = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(pool(tokens(), prefix, "cls"), prefix[:, 0])


@pytest.mark.parametrize("prefix", [None, torch.zeros(2, 0, 3)])
def test_cls_needs_a_class_token(prefix):
    with pytest.raises(ValueError, match="needs a class token"):
        pool(tokens(), prefix, "cls")


def test_an_unknown_pooling_lists_the_known():
    with pytest.raises(ValueError, match="'avg' is not one of gem, gem_signed, mean, max, cls"):
        pool(tokens(), None, "avg")


@pytest.mark.parametrize("grid", [(4, 4), (5, 5), (3, 8)])
def test_rings_equal_a_loop_over_tokens(grid):
    radii = (0.5, 1.0, 2.0)
    expected: list[list[int]] = [[], [], []]
    for row in range(grid[0]):
        for column in range(grid[1]):
            y, x = (2 * row + 1) / grid[0] - 1, (2 * column + 1) / grid[1] - 1
            ring = next(i for i, radius in enumerate(radii) if math.hypot(x, y) <= radius + 1e-6)
            expected[ring].append(row * grid[1] + column)
    assert [ring.tolist() for ring in ring_members(grid, radii)] == [ring for ring in expected if ring]


def test_a_heading_turns_tokens_within_their_ring():
    turned = torch.rot90(torch.arange(49).view(7, 7)).flatten()
    for ring in ring_members((7, 7), (0.4, 0.8, 1.5)):
        assert sorted(turned[ring].tolist()) == ring.tolist()


def test_tokens_outside_and_rings_too_thin_are_left_out():
    [only] = ring_members((4, 4), (0.1, 0.4))
    assert only.tolist() == [5, 6, 9, 10]


def test_radii_without_any_token_are_refused():
    with pytest.raises(InputError, match=r"rings \[0\.1\] hold no token of a 4 x 4 grid"):
        ring_members((4, 4), (0.1,))
