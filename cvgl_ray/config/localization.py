"""Sections of a localisation on a map: cells, and what is known of the photos before."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from cvgl_ray.config.section import Count, CountOrZero, NotNegative, Section


def _cell_layer(value: object) -> object:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f'{value!r} is neither "auto" nor the index of a block or stage')
    return value


CellLayer = Annotated[Literal["auto"] | int, BeforeValidator(_cell_layer)]


class Cells(Section):
    """Cells of photos and of a map: what they are of, how finely they are compared, what they learn."""

    layer: CellLayer = "auto"
    """index of a stage or block; auto: the deepest stage of at most 16 px per cell, 0.6 of a
    transformer's blocks"""
    side_px: int = Field(default=192, ge=64)
    """px of a photo's side, the root of its pixels, when it is laid on the map"""
    coarse_px: int = Field(default=96, ge=64)
    """the same on a large map, which would take hours otherwise; its cells propose places, fits decide"""
    headings: Count = 12
    """into which photos are turned, evenly over the circle"""
    ground_m: tuple[float, float] = (40.0, 400.0)
    """the least and the largest side of the ground that a photo may show, the root of its area"""
    ground_factor: float = Field(default=1.3, gt=1.0, le=2.0)
    """between two sizes of the ground that are tried"""
    channels: Count = 32
    """principal directions of the cells that are compared"""
    path: bool = True
    """neighbours in a flight, known by times or numbers, choose between places and vouch for them"""
    rounds: CountOrZero = 3
    """of adaptation to the flight, at most: half of the photos, sure, end it; 0: none, as with --no-adapt"""

    @model_validator(mode="after")
    def _ground_rises(self) -> "Cells":
        least, most = self.ground_m
        if not 0 < least <= most:
            raise ValueError(f"ground_m is [{least}, {most}]; give the least side first, above 0")
        return self


class Prior(Section):
    """What photos say of themselves and is believed: it narrows the search. 0: not used."""

    position: NotNegative = 0.0
    """metres: the ground under a photo's middle lies within them of the position in its EXIF"""
    heading: float = Field(default=0.0, ge=0.0, le=180.0)
    """degrees: the photo's top looks within them of the yaw in its XMP"""
    height: NotNegative = 0.0
    """share: the ground's size differs by it at most from what height and focal length give"""
