"""Images without a georeference of their own, placed by a CSV of their corners' coordinates.

Names of columns are read generously: `image_id` (or filename, mapname, ...), and per corner a latitude and a
longitude: `top_left_latitude`, `Top_left_lat`, `LT_lat_map`, `nw_lat`, ... Top left and bottom right suffice
for an image with north up; with three or four corners it may be turned.
"""

import csv
import io
import re

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.maps.frame import transformer
from cvgl_ray.maps.grid import Grid
from cvgl_ray.storage.filesystem import read_bytes

CORNERS = {
    "top_left": ("tl", "lt", "ul", "nw", "topleft", "upperleft", "lefttop"),
    "top_right": ("tr", "rt", "ur", "ne", "topright", "upperright", "righttop"),
    "bottom_left": ("bl", "lb", "ll", "sw", "bottomleft", "lowerleft", "leftbottom"),
    "bottom_right": ("br", "rb", "lr", "se", "bottomright", "lowerright", "rightbottom"),
}
AT = {"top_left": (0, 0), "top_right": (1, 0), "bottom_left": (0, 1), "bottom_right": (1, 1)}  # (x, y)
NAMES = ("image_id", "imageid", "image", "filename", "file", "mapname", "map", "name", "tile")
SLACK = 0.03  # of the image's diagonal: corners that lie further off a parallelogram are at fault

Corner = dict[str, tuple[float, float]]  # corner -> (latitude, longitude)


def read_corners(uri: str) -> dict[str, Corner] | None:
    """File name -> its corners, of a CSV file; None if the file's header names no corners.

    Raises InputError if the file cannot be read or a number is none.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(uri).decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the table {uri!r} cannot be read ({error}): give a UTF-8 CSV file") from error
    columns = [_meaning(name) for name in rows[0]] if rows else []
    corners = {column[0] for column in columns if len(column) == 2}
    if not {"top_left", "bottom_right"} <= corners or ("image",) not in columns:
        return None
    found: dict[str, Corner] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        values = {column: value.strip() for column, value in zip(columns, row, strict=False) if column}
        name = values.pop(("image",), "")
        try:
            numbers = {column: float(value) for column, value in values.items() if value}
            found[name] = {c: (numbers[c, "latitude"], numbers[c, "longitude"]) for c in _complete(numbers)}
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{uri!r}, line {number}: the corners of {name!r} are incomplete or no numbers ({error}):"
                " give degrees"
            ) from error
    return found


def place(name: str, size: tuple[int, int], corners: Corner, crs: str) -> Grid:
    """The grid of an image of `size` (width, height) px by its corners' outer edges.

    crs: in which the image is straight; "" is EPSG:3857, that of screenshots and exports of web maps.
    Raises InputError for coordinates out of range or exchanged, a mirrored image, and corners that are none
    of a rectangle.
    """
    _check_range(name, corners)
    crs = crs or "EPSG:3857"
    width, height = size
    at = {corner: (AT[corner][0] * width, AT[corner][1] * height) for corner in corners}
    to_crs = transformer("EPSG:4326", crs)
    xy = {corner: to_crs.transform(longitude, latitude) for corner, (latitude, longitude) in corners.items()}
    if len(corners) == 2:
        (left, top), (right, bottom) = xy["top_left"], xy["bottom_right"]
        transform = ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)
    else:
        pixels = np.array([[*at[corner], 1] for corner in corners], float)
        fit, *_ = np.linalg.lstsq(pixels, np.array([xy[corner] for corner in corners]), rcond=None)
        off = np.hypot(*(pixels @ fit - np.array([xy[corner] for corner in corners])).T).max()
        if off > SLACK * np.hypot(*(np.array([width, height]) @ fit[:2])):
            raise InputError(f"the corners of {name!r} form no rectangle: check each corner's coordinates")
        transform = (*fit[:, 0].tolist(), *fit[:, 1].tolist())
    a, b, _, d, e, _ = transform
    if a * e - b * d >= 0 or (len(corners) == 2 and a <= 0):
        raise InputError(
            f"the corners of {name!r} show it mirrored or upside down: probably latitude and longitude, or"
            " two corners, are exchanged in the table"
        )
    return Grid(width, height, crs, transform)


def _check_range(name: str, corners: Corner) -> None:
    for latitude, longitude in corners.values():
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            exchanged = abs(longitude) <= 90 and abs(latitude) <= 180
            hint = "latitude and longitude are exchanged" if exchanged else "they are no degrees"
            raise InputError(
                f"a corner of {name!r} lies at latitude {latitude}, longitude {longitude}: {hint}"
            )


def _complete(numbers: dict[tuple[str, ...], float]) -> list[str]:
    """The corners that a row has; top left and bottom right it must have."""
    return [c for c in AT if (c, "latitude") in numbers or c in ("top_left", "bottom_right")]


def _meaning(header: str) -> tuple[str, ...]:
    """("image",), (corner, "latitude" or "longitude"), or () for a column that says something else."""
    plain = header.strip().lower()
    if plain in NAMES:
        return ("image",)
    words = re.sub(r"[^a-z]+", " ", plain).split()
    if len(words) < 2:
        return ()
    axis = {"lat": "latitude", "latitude": "latitude", "lon": "longitude", "long": "longitude"}
    axis |= {"lng": "longitude", "longitude": "longitude"}
    what = next((axis[word] for word in words if word in axis), None)
    for corner, spellings in CORNERS.items():
        if what and (words[0] in spellings or "".join(words[:2]) in spellings):
            return corner, what
    return ()
