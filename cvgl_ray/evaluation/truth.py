"""Where photos were truly taken: from a CSV file or the photos' own GPS. Read by evaluation alone."""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.maps.metadata import PhotoInfo
from cvgl_ray.storage.filesystem import read_bytes

COLUMNS = {  # and what other data sets call them, in any case
    "image_id": ("image_id", "filename", "file", "image", "name"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "long", "lng"),
}


class Truth(NamedTuple):
    """True positions in degrees WGS84; NaN for a photo that is known to lie nowhere on the map."""

    image_ids: tuple[str, ...]
    latitude: np.ndarray  # [N] float64
    longitude: np.ndarray


def read_truth(uri: str) -> Truth:
    """The truth of a CSV file with the columns image_id, latitude and longitude (or as in COLUMNS).

    Other columns are ignored. A row without coordinates says that the photo lies off the map. Photos without
    a row have no truth, which is no error. Raises InputError for a file that cannot be read, a column that is
    missing, a number that is none or out of range, and two rows of one photo.
    """
    header = ",".join(COLUMNS)
    try:
        lines = list(csv.DictReader(io.StringIO(read_bytes(uri).decode("utf-8-sig")), skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the truth {uri!r} cannot be read ({error}): give a UTF-8 CSV file with the header {header}"
        ) from error
    names = {str(name).strip().lower(): str(name) for name in (lines[0] if lines else ())}
    columns = {
        column: next((names[other] for other in others if other in names), "")
        for column, others in COLUMNS.items()
    }
    if not all(columns.values()):
        found = ",".join(names.values()) or "no row"
        raise InputError(f"the truth {uri!r} has {found}: give rows under the header {header}")
    positions: dict[str, tuple[float, float]] = {}
    for number, line in enumerate(lines, start=2):
        image_id, *position = ((line[name] or "").strip() for name in columns.values())
        if image_id in positions:
            raise InputError(f"the truth {uri!r} has two rows for the photo {image_id!r}: keep one of them")
        positions[image_id] = _position(position, f"the truth {uri!r}, line {number}")
    latitude, longitude = np.array(list(positions.values()), np.float64).T
    return Truth(tuple(positions), latitude, longitude)


def truth_of_photos(image_ids: Sequence[str], infos: Sequence[PhotoInfo]) -> Truth:
    """The photos' own GPS: where the camera was, not the ground it saw. Photos without GPS have no truth.

    Raises InputError if no photo has GPS.
    """
    known = [
        (image_id, info.latitude, info.longitude)
        for image_id, info in zip(image_ids, infos, strict=True)
        if info.latitude is not None and info.longitude is not None
    ]
    if not known:
        raise InputError(
            f"none of the {len(image_ids)} photos has a GPS position in its EXIF: give a truth as a CSV file"
        )
    names, latitude, longitude = zip(*known, strict=True)
    return Truth(names, np.array(latitude, np.float64), np.array(longitude, np.float64))


def check_on_map(truth: Truth, geomap: GeoMap) -> None:
    """Raise InputError if latitude and longitude are exchanged: only then most points lie on the map."""
    latitude, longitude = _known(truth)
    if not len(latitude):
        return
    exchanged = np.abs(longitude) <= 90
    straight = float(_inside(latitude, longitude, geomap).mean())
    turned = 0.0
    if exchanged.any():
        turned = float(_inside(longitude[exchanged], latitude[exchanged], geomap).sum()) / len(latitude)
    if turned > 0.5 > straight:
        raise InputError(
            f"{100 * turned:.0f} % of the truth's points lie on the map once latitude and longitude are"
            " exchanged, and"
            f" {100 * straight:.0f} % as they stand: exchange the two columns"
        )


def share_on_map(truth: Truth, geomap: GeoMap) -> float:
    """The share, 0 to 1, of the truth's positions that lie on the map; 0 without any position."""
    latitude, longitude = _known(truth)
    return float(_inside(latitude, longitude, geomap).mean()) if len(latitude) else 0.0


def _known(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(truth.latitude) & np.isfinite(truth.longitude)
    return truth.latitude[known], truth.longitude[known]


def _inside(latitude: np.ndarray, longitude: np.ndarray, geomap: GeoMap) -> np.ndarray:
    return geomap.covers(*geomap.frame.to_local(latitude, longitude))


def _position(texts: list[str], where: str) -> tuple[float, float]:
    if texts == ["", ""]:
        return math.nan, math.nan
    try:
        latitude, longitude = (float(text) for text in texts)
    except ValueError as error:
        raise InputError(f"{where}: {texts} are no latitude and longitude: give degrees") from error
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        exchanged = abs(longitude) <= 90 and abs(latitude) <= 180
        hint = "latitude and longitude look exchanged" if exchanged else "give degrees WGS84"
        raise InputError(f"{where}: there is no latitude {latitude}, longitude {longitude}: {hint}")
    return latitude, longitude
