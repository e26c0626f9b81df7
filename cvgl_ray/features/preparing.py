"""From a decoded picture to a model's input. It holds no weights, so that whoever decodes needs no more."""

import math
from typing import Any

import numpy as np
from PIL import Image

from cvgl_ray.features.pretransform import Pretransform, around, central_crop, projections


class Preparing:
    """How pictures become one model's input: resized, cropped and cut as the model's own data was.

    data: the model's own preprocessing, as timm resolves it; image_size: px of a square input (0: the model's
    own), or height and width of a strip; crop_fraction, interpolation: 0 and "" keep the model's own.
    """

    def __init__(
        self,
        data: dict[str, Any],
        image_size: int | tuple[int, int],
        crop_fraction: float,
        interpolation: str,
    ) -> None:
        self._projections = projections(data, image_size, crop_fraction, interpolation)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the input, px."""
        return next(iter(self._projections.values())).shape

    def prepare(self, image: Image.Image, pretransform: Pretransform) -> np.ndarray:
        """Bring an RGB picture, once per central crop, to the model's input: [crops, 3, H, W] uint8."""
        project = self._projections[pretransform.projection].apply
        image = around(image, pretransform.field_of_view)
        return np.stack([np.asarray(project(central_crop(image, crop))) for crop in pretransform.crops])

    def sufficient_side(self, pretransform: Pretransform) -> int:
        """Px of a picture's shorter side beyond which a feature hardly changes.

        Twice what `prepare` brings it to for the smallest crop: the other half is for its antialiasing.
        """
        return 2 * math.ceil(self._projections[pretransform.projection].side / min(pretransform.crops))
