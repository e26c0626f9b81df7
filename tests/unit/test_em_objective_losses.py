"""Loss terms against torch's own and against loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from cvgl_ray.em.objective import info_nce, orthogonality, reconstruction


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_info_nce_is_cross_entropy(smoothing):
    logits, target = 5 * torch.randn(9, 13), torch.randint(13, (9,))
    ours = info_nce(logits, target, torch.zeros(9, 13, dtype=torch.bool), smoothing)
    torch.testing.assert_close(
        ours, F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_info_nce_with_exclusions_is_cross_entropy_over_what_is_left(smoothing):
    logits, target = 5 * torch.randn(12, 7), torch.randint(7, (12,))
    excluded = torch.rand(12, 7) < 0.5
    excluded[torch.arange(12), target] = False
    ours = info_nce(logits, target, excluded, smoothing)
    for i in range(12):
        kept = [c for c in range(7) if not excluded[i, c]]
        log_sum = math.log(sum(math.exp(logits[i, c]) for c in kept))
        positive = float(logits[i, target[i]]) - log_sum
        uniform = sum(float(logits[i, c]) - log_sum for c in kept) / len(kept)
        assert float(ours[i]) == pytest.approx(-(1 - smoothing) * positive - smoothing * uniform, abs=1e-4)


def test_rows_without_a_positive_weigh_nothing():
    logits = torch.randn(4, 5, requires_grad=True)
    target = torch.tensor([-1, 2, -1, -1])
    excluded = torch.zeros(4, 5, dtype=torch.bool)
    excluded[0, 0] = True  # the column that a missing target would read
    excluded[2] = True  # no candidate at all
    losses = info_nce(logits, target, excluded, 0.1)
    losses.sum().backward()
    assert losses[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert losses[1] > 0
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[[0, 2, 3]].any()
    assert logits.grad[1].any()


def test_an_excluded_candidate_gets_no_gradient():
    logits = torch.randn(1, 4, requires_grad=True)
    info_nce(logits, torch.tensor([0]), torch.tensor([[False, False, True, False]]), 0.1).sum().backward()
    assert logits.grad[0, 2] == 0
    assert (logits.grad[0, [0, 1, 3]] != 0).all()


def test_reconstruction():
    decoded, rows = torch.randn(6, 8), F.normalize(torch.randn(6, 8), dim=-1)
    l1, l2 = reconstruction(decoded, rows, "l1"), reconstruction(decoded, rows, "l2")
    for i in range(6):
        length = math.sqrt(sum(float(v) ** 2 for v in decoded[i]))
        assert float(l1[i]) == pytest.approx(
            sum(abs(float(d) / length - float(r)) for d, r in zip(decoded[i], rows[i], strict=True)) / 8
        )
        assert float(l2[i]) == pytest.approx(
            sum((float(d) - float(r)) ** 2 for d, r in zip(decoded[i], rows[i], strict=True))
        )
    torch.testing.assert_close(reconstruction(7 * rows, rows, "l1"), torch.zeros(6))  # blind to length
    torch.testing.assert_close(reconstruction(rows, rows, "l2"), torch.zeros(6))


def test_orthogonality_is_zero_for_isometries_alone():
    isometry = torch.linalg.qr(torch.randn(9, 5))[0]
    for weight in (isometry, isometry.T, torch.linalg.qr(torch.randn(6, 6))[0], torch.eye(4)):
        assert float(orthogonality(weight)) == pytest.approx(0, abs=1e-10)
        assert float(orthogonality(2 * weight)) == pytest.approx(9, rel=1e-5)  # (4 - 1)^2 on the diagonal
