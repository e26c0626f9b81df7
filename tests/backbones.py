"""Small timm models with random weights, and pictures for them."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.weights import build_model

ONCE = Pretransform()
STREET = Pretransform(projection="panorama")
FAMILIES = ["test_vit", "test_efficientnet", "test_resnet", "test_convnext"]


@cache
def model(name: str = "test_vit") -> nn.Module:
    return build_model(name, pretrained=False, seed=0).eval()


def backbone(name: str = "test_vit", **options: Any) -> FrozenBackbone:
    return FrozenBackbone(model(name), **options)


def photo(width: int = 160, height: int = 160, seed: int = 0) -> Image.Image:
    """Smooth coloured blobs, so that resizing matters but does not dominate."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def batch(count: int = 2, crops: int = 1) -> np.ndarray:
    """[count, crops, 3, 160, 160] uint8, as `prepare` makes them."""
    images = [np.asarray(photo(seed=seed)).transpose(2, 0, 1) for seed in range(count * crops)]
    return np.stack(images).reshape(count, crops, 3, 160, 160)
