"""What a localisation leaves for people and programs: tables, the page, figures, georeferenced photos."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metres import localization_metrics
from cvgl_ray.evaluation.truth import Truth
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.localization.photo_files import PhotoFile, reduced
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.reports.flight_page import PHOTO_PX, write_page
from cvgl_ray.reports.georeference import write_gcp_list, write_geotiffs, write_world_files
from cvgl_ray.reports.location import Location, write_locations
from cvgl_ray.reports.map_picture import map_picture, map_under
from cvgl_ray.storage.filesystem import read_bytes

KINDS = ("world", "geotiff", "gcp")  # of georeferenced photos, on request


def figures(rows: Sequence[Location], truth: Truth) -> dict[str, Any]:
    """metrics.json's tree, see `localization_metrics`."""

    def column(name: str, missing: float) -> np.ndarray:
        values = (getattr(row, name) for row in rows)
        return np.array([missing if value is None else value for value in values], np.float64)

    return localization_metrics(
        [row.image_id for row in rows],
        column("latitude", np.nan),
        column("longitude", np.nan),
        np.array([row.found for row in rows]),
        truth,
        column("confidence", 0.0),
        column("error_m", np.inf),
    )


def write_tables(folder: Path, rows: Sequence[Location], photos: Sequence[PhotoFile]) -> None:
    """locations.csv and locations.geojson."""
    aspects = {
        photo.image_id: photo.info.height_px / photo.info.width_px
        for photo in photos
        if photo.info.width_px and photo.info.height_px
    }
    write_locations(folder, rows, aspects)


def write_report(
    path: Path,
    rows: Sequence[Location],
    photos: Sequence[PhotoFile],
    geomap: GeoMap,
    *,
    truth: Truth | None = None,
    **told: Any,
) -> None:
    """The page; told: what `write_page` takes besides."""
    uris = {photo.image_id: photo.uri for photo in photos}
    positions = {}
    if truth is not None:
        positions = dict(zip(truth.image_ids, zip(truth.latitude, truth.longitude, strict=True), strict=True))
    write_page(
        path,
        rows,
        map_picture=map_picture(geomap),
        photo=lambda image_id: small(uris[image_id]),
        crop=lambda row, size: map_under(geomap, row, size),
        truth=positions,
        **told,
    )


def write_georeferenced(
    folder: Path, kinds: Sequence[str], rows: Sequence[Location], photos: Sequence[PhotoFile]
) -> None:
    """Files of georeferenced photos below `folder`, by kind: world/, geotiff/, gcp_list.txt."""
    uris = {photo.image_id: photo.uri for photo in photos}
    found = [row for row in rows if row.found]
    sizes = (
        {row.image_id: _full(uris[row.image_id]).size for row in found} if set(kinds) - {"geotiff"} else {}
    )
    write: Mapping[str, Callable[[], int]] = {
        "world": lambda: write_world_files(folder / "world", found, sizes),
        "geotiff": lambda: write_geotiffs(folder / "geotiff", found, lambda name: _full(uris[name])),
        "gcp": lambda: write_gcp_list(folder / "gcp_list.txt", found, sizes),
    }
    for kind in dict.fromkeys(kinds):
        write[kind]()


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise InputError for a kind of output that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"--write {kind} is none of the kinds that are written: {', '.join(KINDS)}")


def small(uri: str) -> Image.Image | None:
    """A photo as it is shown, None where it cannot be read."""
    try:
        return reduced(decode(read_bytes(uri), PHOTO_PX), PHOTO_PX)
    except (BrokenImageError, OSError):
        return None


def _full(uri: str) -> Image.Image:
    return decode(read_bytes(uri))
