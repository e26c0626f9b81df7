"""Siblings against a loop over all pairs, and what they do to the closed form."""

import numpy as np
import pytest
import torch

from cvgl_ray.config import load_config
from cvgl_ray.em import closed_form as module
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.closed_form import fit_attenuation, siblings
from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.features.views import unit_rows


def normaliser(rows):
    return lambda ids: torch.from_numpy(rows[ids])


def naive(rows, among):
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    best = scores.argmax(axis=1)
    return sorted({tuple(sorted((i, best[i]))) for i in among if best[best[i]] == i})


def test_siblings_are_each_others_nearest(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    rows = unit_rows(np.random.default_rng(0).normal(size=(50, 6)))
    found = siblings(normaliser(rows), 50, 20)
    assert [tuple(pair) for pair in found] == naive(rows, range(50))
    monkeypatch.setattr(module, "SAMPLE", 10)
    sampled = {tuple(pair) for pair in siblings(normaliser(rows), 50, 20)}
    assert 0 < len(sampled) <= 10
    assert sampled <= set(naive(rows, range(50)))


@pytest.mark.parametrize("others", [50, 40, 100])
def test_a_view_of_one_image_a_place_has_none(others):
    rows = unit_rows(np.random.default_rng(0).normal(size=(50, 6)))
    assert siblings(normaliser(rows), 50, others).shape == (0, 2)


def after_a_round(weight, images):
    """A learner after one round on 12 places of so many queries, its labels, both views as unit rows."""
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(12), images)
    reference = rng.normal(size=(12, 16)).astype(np.float32)
    query = (reference[owner] + 0.3 * rng.normal(size=(len(owner), 16))).astype(np.float32)
    learner = build_learner(load_config(None, (f"adapter.siblings={weight}",)).learning, 16)
    labels = pseudo_labels(unit_rows(query), unit_rows(reference))
    learner.m_step(labels, query, reference, np.random.default_rng(0))
    return learner, labels, unit_rows(query), unit_rows(reference)


def test_the_closed_form_is_fitted_to_their_differences_too():
    learner, labels, query, reference = after_a_round(0.5, images=3)
    queries, references = labels.pairs()
    within = naive(query, range(len(query)))
    assert within
    differences = [query[queries] - reference[references]]
    differences += [np.sqrt(0.5) * (query[[i]] - query[[j]]) for i, j in within]
    expected = build_learner(load_config(None).learning, 16).adapter
    fit_attenuation(expected, torch.from_numpy(np.concatenate(differences)), 0.5)
    eye = torch.eye(16)
    torch.testing.assert_close(learner.adapter.encode(eye), expected.encode(eye), rtol=1e-4, atol=1e-5)


def test_where_a_place_has_one_image_they_change_nothing():
    with_them, without = (after_a_round(weight, images=1)[0].adapter.state_dict() for weight in (0.5, 0.0))
    torch.testing.assert_close(with_them, without, rtol=0, atol=0)
