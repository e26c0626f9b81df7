"""The same code on a GPU: features, cells, an adapter and a flight on a map are those of the CPU."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from backbones import batch, model
from drawn import SMALL, write_map, write_photos

from cvgl_ray.config import load_config
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.rounds import frozen_graphs, local_matcher, run_rounds
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.localization.request import Request
from cvgl_ray.localization.run import localize_map
from cvgl_ray.search import gpu, topk, views

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_features_and_cells_are_those_of_the_cpu(name):
    turned = Pretransform(orientations=4)
    backbone = FrozenBackbone(deepcopy(model(name)), rings=[0.5])
    expected = backbone.embed(batch(), turned)
    backbone.to("cuda")
    np.testing.assert_allclose(backbone.embed(batch(), turned), expected, atol=2e-3)
    cells = CellModel(deepcopy(model(name)))
    pictures = torch.from_numpy(batch()[:, 0])
    expected_cells = cells(pictures)
    cells.to("cuda")
    torch.testing.assert_close(cells(pictures), expected_cells, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", ["attenuation", "linear"])
def test_rounds_on_a_gpu_find_the_pairs_of_the_cpu(kind):
    rng = np.random.default_rng(0)
    places = rng.normal(size=(200, 48))
    query, reference = (
        (places + view + 0.4 * rng.normal(size=places.shape)).astype(np.float32) for view in (0.0, 1.0)
    )
    config = load_config(None, (f"adapter.kind={kind}", "mstep.rounds=3"))
    centre = torch.from_numpy(np.stack([query.mean(axis=0), reference.mean(axis=0)]))
    labels = []
    for device in ("cpu", "cuda"):
        learner = build_learner(config.learning, query.shape[1], centre, device)
        graphs = frozen_graphs(query, reference, learner.adapter)
        matcher = local_matcher(config.estep, graphs, device)
        done = list(run_rounds(learner, query, reference, config.learning, matcher=matcher))
        labels.append(done[-1].labels.of_query)
    assert (labels[0] == labels[1]).mean() > 0.98


def test_a_flight_is_placed_on_a_gpu_as_on_the_cpu(tmp_path):
    request = Request([str(write_map(tmp_path / "map.tif"))], [str(write_photos(tmp_path / "photos"))])
    rows = []
    for asked in ("false", "true"):
        config = load_config(None, (*SMALL, f"run.gpu={asked}"))
        rows.append(localize_map(config, request, tmp_path / asked).rows)
    for here, there in zip(*rows, strict=True):
        assert here.found == there.found
        if here.found:
            assert math.dist((here.latitude, here.longitude), (there.latitude, there.longitude)) < 2e-5


def test_the_nearest_on_a_gpu_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(gpu, "ROWS", 70)
    monkeypatch.setattr(gpu, "COLUMNS", 64)
    rng = np.random.default_rng(1)
    query, reference = (rng.normal(size=(count, 24)).astype(np.float32) for count in (150, 200))
    hubs = rng.random(150, dtype=np.float32), rng.random(200, dtype=np.float32)
    for hubness in (None, hubs):
        both = [topk.nearest_both(query, reference, 7, 99, hubness, device=d) for d in ("cpu", "cuda")]
        for here, there in zip(*both, strict=True):
            np.testing.assert_array_equal(here.ids, there.ids)
            np.testing.assert_allclose(here.scores, there.scores, atol=1e-4)
    np.testing.assert_array_equal(*(views.within(query, 5, device=d).ids for d in ("cpu", "cuda")))
