"""A drawn map, and photos of it whose poses are known: a flight of a second's work."""

import csv
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine
from rasters import write
from scipy import ndimage

from cvgl_ray.maps.metadata import PhotoInfo
from cvgl_ray.maps.metadata_write import exif_bytes, xmp_bytes

CRS = "EPSG:32633"
WIDTH_M, HEIGHT_M = 600, 500  # of the map, at one pixel per metre
CORNER = (396_000.0, 5_820_000.0)  # its north-west one
PHOTO_PX = (240, 180)

Shot = tuple[float, float, float, float]  # metres east and south of the corner, heading, metres across

SHOTS: Mapping[str, Shot] = {
    "shot_01.jpg": (240, 210, 0, 140),
    "shot_02.jpg": (390, 320, 90, 130),
    "shot_03.jpg": (310, 150, 205, 150),
    "shot_04.jpg": (180, 330, 317, 125),
    "shot_05.jpg": (420, 190, 148, 140),
    "shot_06.jpg": (120, 140, 60, 130),
    "shot_07.jpg": (490, 400, 265, 135),
    "shot_08.jpg": (300, 380, 20, 145),
}
NAMES = tuple(SHOTS)
# A network of random weights finds them.
SMALL = (
    "backbone.name=test_efficientnet",
    "backbone.pretrained=false",
    "cells.side_px=192",
    "cells.ground_m=[90.0, 150.0]",
)


@cache
def ground(seed: int = 0) -> np.ndarray:
    """A picture [HEIGHT_M, WIDTH_M, 3] of smooth noise; no part of it is black or white."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT_M, WIDTH_M, 3))
    blurred = sum(ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (3.0, 8.0))
    return np.clip(128 + blurred / blurred.std() * 45, 6, 250)


def write_map(path: Path, width_m: int = WIDTH_M, height_m: int = HEIGHT_M) -> Path:
    """A GeoTIFF of the ground, or of its north-west part."""
    pixels = ground()[:height_m, :width_m].astype(np.uint8).transpose(2, 0, 1)
    transform = Affine(1.0, 0, CORNER[0], 0, -1.0, CORNER[1])
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    return write(path, pixels, CRS, transform, **blocks)


def photo(shot: Shot, seed: int = 0) -> Image.Image:
    """What a camera that looks straight down sees of the ground; another seed: of ground off the map."""
    east, south, heading, across = shot
    right, down = np.meshgrid(*((np.arange(px) + 0.5 - px / 2) * across / PHOTO_PX[0] for px in PHOTO_PX))
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    rows, columns = south + sin * right + cos * down - 0.5, east + cos * right - sin * down - 0.5
    bands = [
        ndimage.map_coordinates(band, [rows, columns], order=1) for band in np.moveaxis(ground(seed), 2, 0)
    ]
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def place(shot: Shot) -> tuple[float, float]:
    """(latitude, longitude) of the ground under a photo's middle."""
    to_wgs84 = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    longitude, latitude = to_wgs84.transform(CORNER[0] + shot[0], CORNER[1] - shot[1])
    return latitude, longitude


def write_photos(
    folder: Path, names: Sequence[str] = NAMES, *, seed: int = 0, infos: Mapping[str, PhotoInfo] | None = None
) -> Path:
    """Photos of these names below a folder; infos: what some say of themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        info = (infos or {}).get(name, PhotoInfo())
        photo(SHOTS[name], seed).save(folder / name, quality=92, exif=exif_bytes(info), xmp=xmp_bytes(info))
    return folder


def write_truth(
    path: Path, names: Sequence[str] = NAMES, columns: str = "image_id,latitude,longitude"
) -> Path:
    """The true places of these photos as a CSV file."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns.split(","))
        table.writerows((name, *place(SHOTS[name])) for name in names)
    return path
