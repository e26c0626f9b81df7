"""What photos say of themselves, where it is believed: the poses of each that are searched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cvgl_ray.alignment.photo_search import Near, Peaks
from cvgl_ray.alignment.scales import Scale
from cvgl_ray.alignment.turned import PhotoCells
from cvgl_ray.config import Prior
from cvgl_ray.errors import InputError
from cvgl_ray.maps.footprint import footprint
from cvgl_ray.maps.frame import LocalFrame
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.maps.metadata import PhotoInfo


@dataclass(frozen=True)
class Allowed:
    """The poses of N photos that are searched; None: all.

    headings [N, H] bool, scales [N, S] bool; near: positions.
    """

    headings: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    near: Near | None = None

    def of(self, rows: Sequence[int] | slice) -> "Allowed":
        """Of some photos."""
        headings, scales = (None if part is None else part[rows] for part in (self.headings, self.scales))
        return Allowed(headings, scales, None if self.near is None else self.near.of(rows))

    def turned(self, photos: Sequence[PhotoCells]) -> list[PhotoCells]:
        """The photos, of whose other headings no cell counts."""
        if self.headings is None:
            return list(photos)
        return [
            PhotoCells(photo.cells, photo.masks & allowed[:, None, None])
            for photo, allowed in zip(photos, self.headings, strict=True)
        ]

    def scaled(self, by_scale: Sequence[Peaks]) -> list[Peaks]:
        """Peaks by scale without those of other scales."""
        if self.scales is None:
            return list(by_scale)
        return [
            peaks._replace(score=torch.where(allowed[:, None], peaks.score, -math.inf))
            for peaks, allowed in zip(by_scale, self.scales.T, strict=True)
        ]


def allowed_poses(
    section: Prior,
    infos: Sequence[PhotoInfo],
    geomap: GeoMap,
    scales: Sequence[Scale],
    headings: Sequence[float],
) -> tuple[Allowed, list[str]]:
    """The poses that the configured priors allow, and a sentence about each prior.

    A photo that does not say what a prior is of may have any. Raises InputError where no photo says it, and
    where no photo's position lies on the map.
    """
    told = []
    near = by_heading = by_scale = None
    if section.position:
        near = _near(section.position, infos, geomap)
        count = int(near.east.isfinite().sum())
        told.append(f"position: within {section.position:g} m of the GPS of {_of(count, infos)}")
    if section.heading:
        known = [info.heading_deg for info in infos]
        _check(known, "prior.heading", "yaw in its XMP")
        reach = section.heading + 180 / len(headings)  # so that the nearest heading is always searched
        by_heading = torch.tensor([[_turned(deg, yaw) <= reach for deg in headings] for yaw in known])
        told.append(f"heading: within {section.heading:g} degrees of the yaw of {_counted(known)}")
    if section.height:
        sides = [_side_m(info) for info in infos]
        _check(sides, "prior.height", "height above take-off and a focal length in its metadata")
        by_scale = torch.tensor([_scales_near(side, scales, section.height) for side in sides])
        told.append(f"height: ground within {100 * section.height:g} % of what {_counted(sides)} give")
    return Allowed(by_heading, by_scale, near), told


def positions(infos: Sequence[PhotoInfo], frame: LocalFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """East and north [N] in metres of the photos' own GPS, NaN where they have none."""
    known = [
        (math.nan, math.nan)
        if info.latitude is None or info.longitude is None
        else frame.to_local(info.latitude, info.longitude)
        for info in infos
    ]
    east, north = torch.tensor(known, dtype=torch.float64).reshape(-1, 2).T
    return east, north


def _near(radius_m: float, infos: Sequence[PhotoInfo], geomap: GeoMap) -> Near:
    east, north = positions(infos, geomap.frame)
    _check(
        [None if math.isnan(value) else value for value in east.tolist()], "prior.position", "GPS position"
    )
    west, south, right, top = geomap.bounds.grown(radius_m)
    if not bool(((east >= west) & (east <= right) & (north >= south) & (north <= top)).any()):
        raise InputError(
            f"no photo's GPS position lies within prior.position = {radius_m:g} m of the map: give the map"
            " of where they were taken, or leave prior.position out"
        )
    return Near(east, north, radius_m)


def _check(known: Sequence[float | None], key: str, what: str) -> None:
    if all(value is None for value in known):
        raise InputError(f"{key} is set, and none of the {len(known)} photos has a {what}: leave {key} out")


def _turned(one: float, other: float | None) -> float:
    """Degrees between two headings; 0 where one is not known."""
    return 0.0 if other is None else abs((one - other + 180) % 360 - 180)


def _side_m(info: PhotoInfo) -> float | None:
    """The root of the ground's area that a photo shows, by height, focal length and angles."""
    found = footprint(info)
    if found is None or not info.width_px or not info.height_px:
        return None
    return found.ground_width_m * math.sqrt(info.height_px / info.width_px)


def _scales_near(side_m: float | None, scales: Sequence[Scale], share: float) -> list[bool]:
    """Scales within a share of a size; always the nearest one."""
    if side_m is None:
        return [True] * len(scales)
    away = [abs(math.log(scale.side_m / side_m)) for scale in scales]
    return [one <= max(math.log1p(share), min(away)) for one in away]


def _of(count: int, infos: Sequence[PhotoInfo]) -> str:
    return f"{count} of {len(infos)} photos"


def _counted(known: Sequence[float | None]) -> str:
    return f"{sum(value is not None for value in known)} of {len(known)} photos"
