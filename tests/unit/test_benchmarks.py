"""The benchmarks' peers do the work that they are timed on."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.evaluation.metrics import retrieval_metrics

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_plain_torch_finds_the_same_matches(script):
    estep = script("estep")
    query, reference = estep.two_views(60, 8)
    of_query, of_reference = estep.plain_torch(torch.from_numpy(query), torch.from_numpy(reference))
    labels = pseudo_labels(query, reference)
    np.testing.assert_array_equal(labels.best_of_query, of_query)
    np.testing.assert_array_equal(labels.best_of_reference, of_reference)


def test_one_query_at_a_time_gives_the_same_figures(script):
    evaluation = script("evaluation")
    rng = np.random.default_rng(0)
    places, gallery_places = np.repeat(np.arange(20), 2), np.arange(20)
    rows = evaluation.embeddings(60, np.concatenate([places, gallery_places]), 16, rng)
    found = evaluation.one_at_a_time(rows[:40], rows[40:], places, gallery_places)
    sides = torch.from_numpy(rows[:40].copy()), torch.from_numpy(rows[40:].copy())
    expected = retrieval_metrics(*sides, places.astype(str), gallery_places.astype(str))
    for name, value in found.items():
        assert value == pytest.approx(expected[name])


def test_a_race_gives_turns_and_the_median_ratio(script):
    side_by_side = script("side_by_side")
    calls = []
    side_by_side.race(lambda: calls.append("product"), lambda: calls.append("peer"), 3)
    assert calls == ["product", "peer", "peer", "product", "product", "peer"]
    race = side_by_side.Race([1.0, 1.0, 2.0], [2.0, 8.0, 6.0])
    assert race.ratio == 3.0
    assert "3 x (target 4: MISSED)" in side_by_side.line("work", race, 4)
