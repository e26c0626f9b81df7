"""From a decoded picture to a model's input. It holds no weights, so that whoever decodes needs no more."""

import math
from typing import Any

import numpy as np
from PIL import Image

from cvgl_ray.features.pretransform import Pretransform, Variant, around, by_crop, central_crop, projections


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
        return np.stack([self.picture(image, made[0]) for made in by_crop(pretransform.variants).values()])

    def picture(self, image: Image.Image, variant: Variant) -> np.ndarray:
        """An RGB picture's central crop as the model's input [3, H, W] uint8, not turned nor mirrored yet."""
        whole = around(image, variant.field_of_view)
        project = self._projections[variant.projection].apply
        return np.asarray(project(central_crop(whole, variant.crop)))

    def sufficient_side(self, variant: Variant) -> int:
        """Px of a picture's shorter side beyond which the variant's vector hardly changes.

        At least twice what its crop is brought to: the other half is for its antialiasing. Crops from a half
        to just below the whole count alike, and so on by powers of two, so that a picture need not be decoded
        for each. Other variants' crops do not count: a variant's vector is its own.
        """
        return 2 * self._projections[variant.projection].side * 2 ** math.ceil(-math.log2(variant.crop))
