"""Folded models give the features that they gave before; what cannot be folded is left as it is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.folding import fold_batch_norms
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.weights import build_model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def trained_statistics(model: nn.Module) -> None:
    """Other statistics, scales and shifts than those of a new model, which do nothing."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_var, module.weight):
                value.data.uniform_(0.5, 2)
            for value in (module.running_mean, module.bias):
                value.data.normal_()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_a_folded_backbone_gives_the_same_features(name):
    model = build_model(name, pretrained=False, seed=0)
    trained_statistics(model)
    backbone = FrozenBackbone(model, layers=(-2, "final"), rings=(0.5, 1.5), image_size=64)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 3, 64, 64), dtype=np.uint8)
    before, found = backbone.embed(images, Pretransform()), norms(model)
    backbone.fold()
    assert found > 0
    assert norms(model) == 0
    np.testing.assert_allclose(backbone.embed(images, Pretransform()), before, atol=1e-5)


def test_a_model_without_batch_normalisation_is_not_touched():
    model = build_model("test_vit", pretrained=False, seed=0)
    weights = [value.clone() for value in model.state_dict().values()]
    FrozenBackbone(model).fold()
    assert all(torch.equal(*both) for both in zip(weights, model.state_dict().values(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_alone(dtype):
    model = build_model("test_resnet", pretrained=False, seed=0)
    found = norms(model)
    FrozenBackbone(model, image_size=64, dtype=dtype).fold()
    assert norms(model) == found > 0


class Branching(nn.Module):
    """A convolution and a normalisation, put together in one of several ways."""

    def __init__(self, compose: Callable[["Branching", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.compose = compose

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.compose(self, rows)


@pytest.mark.parametrize(
    ("compose", "expected"),
    [
        (lambda m, x: m.norm(m.conv(x)).relu(), 1),
        (lambda m, x: m.norm(m.conv(x).relu()), 0),  # something in between
        (lambda m, x: (y := m.conv(x)) + m.norm(y), 0),  # another reader
        (lambda m, x: m.norm(m.conv(m.conv(x))), 0),  # called twice
        (lambda m, x: m.norm(x) + m.norm(m.conv(x)), 0),
    ],
)
def test_only_what_the_outputs_allow_is_folded(compose, expected):
    model = Branching(compose).eval()
    trained_statistics(model)
    rows = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        before = model(rows)
        assert fold_batch_norms(model, lambda: [model(rows)]) == expected
        torch.testing.assert_close(model(rows), before, rtol=1e-4, atol=1e-5)
    assert norms(model) == 1 - expected
