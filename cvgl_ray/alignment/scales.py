"""At which ground sizes photos are searched, and at which resolution each size is compared."""

import math
from collections.abc import Sequence
from typing import NamedTuple

SIDES_M = (40.0, 400.0)
FACTOR = 1.3
UPSAMPLED = 1.25  # a map that is enlarged by more tells nothing new
LEAST_PX = 64  # of a photo's side: four cells


class Scale(NamedTuple):
    """One assumed size of the ground that a photo shows.

    The side of a photo is the square root of its valid pixels: photos of one side show equally much,
    whatever their shape.
    """

    metres_per_pixel: float  # of the map and the photo when they are compared
    side_px: int  # of the photo then

    @property
    def side_m(self) -> float:
        """The square root of the ground that a photo shows, in metres."""
        return self.metres_per_pixel * self.side_px


def plan_scales(
    native: float,
    side_px: int,
    sides_m: tuple[float, float] = SIDES_M,
    factor: float = FACTOR,
    shared: int = 1,
) -> list[Scale]:
    """Scales from the smallest ground to the largest, a factor apart.

    native: metres per pixel of the map. side_px: of a photo; it is less where the map is too coarse for that,
    so that one resolution of the map serves several scales. shared: so many neighbouring scales are compared
    at one resolution, the smallest ground's among them; the other photos are larger than side_px then.
    Scales at which a photo would be smaller than LEAST_PX are left out: of so few pixels the map tells no two
    places apart.
    """
    least, most = sides_m
    steps = max(1, math.ceil(math.log(most / least) / math.log(factor)))
    scales = []
    for step in range(steps + 1):
        side, smallest = (least * (most / least) ** (n / steps) for n in (step, step - step % shared))
        resolution = max(native / UPSAMPLED, smallest / side_px)
        scales.append(Scale(resolution, round(side / resolution)))
    return [scale for scale in scales if scale.side_px >= LEAST_PX]


def resolutions(scales: Sequence[Scale]) -> list[float]:
    """The different metres per pixel that cells of the map are needed at, the finest first."""
    return sorted({scale.metres_per_pixel for scale in scales})


def photo_sides(scales: Sequence[Scale]) -> list[int]:
    """The different sizes, in px, that cells of a photo are needed at: each costs a forward per heading."""
    return sorted({scale.side_px for scale in scales})
