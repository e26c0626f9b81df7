"""The M-step's loss against loops over rows and candidates."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cvgl_ray.em.adapters import LinearAdapter
from cvgl_ray.em.batches import Batch
from cvgl_ray.em.objective import Objective, orthogonality
from cvgl_ray.features.views import QUERY, REFERENCE

# Queries 0 and 2 are siblings (reference 1), query 3 and references 0 and 3 have no positive, and reference 2
# names a query that prefers another reference.
BATCH = Batch(np.arange(5), np.arange(4), np.array([1, 1, 1, -1, 1]), np.array([-1, 2, 4, -1]))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def forward(objective, batch, query, reference):
    counts = [torch.ones(len(rows), dtype=torch.bool) for rows in (query, reference)]
    return objective(query, counts[0], reference, counts[1], batch)


def inputs(batch, dimension=8):
    return [torch.randn(len(rows), dimension) + 1 for rows in (batch.query_rows, batch.reference_rows)]


def naive_contrast(z_rows, z_others, of_row, of_other, scale, smoothing):
    """Mean over the labelled rows of the smoothed cross entropy over their candidates."""
    losses = []
    for i, positive in enumerate(of_row):
        if positive < 0:
            continue
        kept = [c for c in range(len(of_other)) if c == positive or of_other[c] != i]
        logits = {c: float(scale * z_rows[i] @ z_others[c]) for c in kept}
        log_sum = math.log(sum(math.exp(v) for v in logits.values()))
        uniform = sum(v - log_sum for v in logits.values()) / len(kept)
        losses.append(-(1 - smoothing) * (logits[positive] - log_sum) - smoothing * uniform)
    return sum(losses) / max(len(losses), 1)


def test_the_contrast_is_symmetric_info_nce_without_siblings():
    adapter = LinearAdapter(8, init="random", centre=0.1 * torch.randn(2, 8))
    query, reference = inputs(BATCH)
    terms = forward(Objective(adapter, temperature=0.2, label_smoothing=0.1), BATCH, query, reference)
    z_q, z_r = (adapter(rows, view).detach() for rows, view in ((query, QUERY), (reference, REFERENCE)))
    one = naive_contrast(z_q, z_r, BATCH.of_query, BATCH.of_reference, 5, 0.1)
    two = naive_contrast(z_r, z_q, BATCH.of_reference, BATCH.of_query, 5, 0.1)
    assert terms["info_nce"].item() == pytest.approx((one + two) / 2, rel=1e-5)


def test_terms_add_up_to_the_loss():
    adapter = LinearAdapter(8, 6, init="random")
    objective = Objective(adapter, reconstruction_weight=0.5, orthogonality_weight=0.25)
    query, reference = inputs(BATCH)
    terms = forward(objective, BATCH, query, reference)
    assert set(terms) == {"info_nce", "reconstruction", "orthogonality", "loss"}
    distances = 0.0
    for rows, view in ((query, QUERY), (reference, REFERENCE)):
        unit = adapter.normalise(rows, view)
        distances += (adapter.decode(adapter.encode(unit)) - unit).square().sum(1).mean().item()
    assert terms["reconstruction"].item() == pytest.approx(0.5 * distances, rel=1e-5)
    gap = orthogonality(adapter.encoder.weight).item()
    assert terms["orthogonality"].item() == pytest.approx(0.25 * gap, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(sum(v.item() for k, v in terms.items() if k != "loss"))


def test_without_reconstruction_the_decoder_rests():
    adapter = LinearAdapter(8, norm="batch")
    objective = Objective(adapter, reconstruction_weight=0, learn_temperature=False)
    terms = forward(objective, BATCH, *inputs(BATCH))
    terms["loss"].backward()
    assert set(terms) == {"info_nce", "loss"}
    learnt = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert learnt == {n for n, p in objective.named_parameters() if p.grad is not None}
    assert not any("decoder" in name or "log_scale" in name for name in learnt)


def test_temperature_is_where_it_was_set_and_learns():
    objective = Objective(LinearAdapter(8), temperature=1 / 14.28)
    assert objective.log_scale.exp().item() == pytest.approx(14.28, rel=1e-5)
    forward(objective, BATCH, *inputs(BATCH))["loss"].backward()
    assert objective.log_scale.grad.abs() > 0


def test_a_batch_without_a_pair_is_finite():
    none = Batch(np.arange(3), np.arange(2), np.full(3, -1), np.full(2, -1))
    objective = Objective(LinearAdapter(8))
    terms = forward(objective, none, *inputs(none))
    terms["loss"].backward()
    assert terms["info_nce"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


def test_the_true_pairs_have_the_least_loss():
    centres = F.normalize(torch.randn(6, 16), dim=-1)
    query, reference = centres + 0.05 * torch.randn(6, 16), centres
    identity = np.arange(6)
    objective = Objective(LinearAdapter(16, norm="none"), reconstruction_weight=0)
    losses = []
    for shift in range(6):
        partner = np.roll(identity, shift)
        batch = Batch(identity, identity, partner, np.argsort(partner))
        losses.append(forward(objective, batch, query, reference)["loss"].item())
    assert losses[0] < 0.5 * min(losses[1:])
