"""From places in the map's frame to rows in degrees."""

import math
from collections.abc import Sequence

import numpy as np

from cvgl_ray.alignment.locate import Place
from cvgl_ray.localization.job import Localized
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.maps.frame import LocalFrame
from cvgl_ray.reports.location import Location

STEP_DEG = 1e-4  # of latitude: along it true north is told


def locations(photos: Sequence[PhotoFile], done: Localized, frame: LocalFrame) -> list[Location]:
    """One row for each photo, in the order given."""
    return [
        _location(
            photo.image_id, done.places.get(photo.image_id), done.reasons.get(photo.image_id, ""), frame
        )
        for photo in photos
    ]


def _location(image_id: str, place: Place | None, reason: str, frame: LocalFrame) -> Location:
    if place is None:
        return Location(image_id, False, confidence=0.0, reason=reason)
    if not place.found:
        told = "no place on the map stands out"
        return Location(image_id, False, confidence=place.confidence, reason=told)
    latitude, longitude = (float(value) for value in frame.to_wgs84(*map(np.asarray, place.middle)))
    corners = None
    if place.corners is not None:
        degrees = frame.to_wgs84(*np.array(place.corners).T)
        corners = tuple((float(one), float(other)) for one, other in zip(*degrees, strict=True))
    return Location(
        image_id,
        True,
        latitude,
        longitude,
        true_heading(place.heading_deg, latitude, longitude, frame),
        place.ground_width_m,
        place.error_m,
        place.confidence,
        corners=corners,
    )


def true_heading(heading_deg: float, latitude: float, longitude: float, frame: LocalFrame) -> float:
    """A heading of the frame's, clockwise from true north at a point, in [0, 360)."""
    step = -STEP_DEG if latitude > 0 else STEP_DEG  # away from the pole
    east, north = frame.to_local(np.array([latitude, latitude + step]), np.array([longitude, longitude]))
    sign = math.copysign(1.0, step)
    frame_of_north = math.degrees(
        math.atan2(sign * float(east[1] - east[0]), sign * float(north[1] - north[0]))
    )
    return (heading_deg - frame_of_north) % 360
