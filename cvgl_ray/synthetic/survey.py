"""A map and a drone's flight over it, on disk: what `localize --map` takes, and the truth apart."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

from cvgl_ray.progress import progress
from cvgl_ray.synthetic.aerial import ground_points, photograph
from cvgl_ray.synthetic.camera import nadir
from cvgl_ray.synthetic.crops import resow, sow, with_crops
from cvgl_ray.synthetic.fields import FloatField
from cvgl_ray.synthetic.region import CELL_M, SPACING_M, build_region
from cvgl_ray.synthetic.route import Shot, fly
from cvgl_ray.synthetic.sensor import DRONE, SURVEY, Picture, draw_sensor, illuminate
from cvgl_ray.synthetic.site import Site, draw_site
from cvgl_ray.synthetic.tags import tagged_jpeg
from cvgl_ray.synthetic.writer import begun, check_range, is_complete, write_bytes

GENERATOR = 1  # to be raised whenever the same parameters would give other files
MAP_MARGIN_M = 40.0  # of the region around the map
MAP_PIXEL_M = 0.4
PHOTO_SIZE = (800, 600)  # px
LIMITS = {
    "flight": (GENERATOR, GENERATOR), "photos": (2, 9999), "quarters": (1, 6), "seed": (0, 2**63 - 1),
    "processes": (1, 1024),
}  # fmt: skip
COLUMNS = (
    "image_id", "latitude", "longitude", "heading_deg", "ground_width_m", "camera_latitude",
    "camera_longitude", "height_m", "tilt_deg",
)  # fmt: skip


def write_flight(
    output: Path, *, seed: int = 0, photos: int = 60, quarters: int = 3, processes: int = 1
) -> None:
    """Render `map.tif`, `photos/*.jpg` and `truth.csv` below `output`; the same bytes for the same arguments.

    The map is a GeoTIFF in UTM, by default of 1.25 km², of another season, light and sensor than the photos.
    These carry a GPS position wrong by some metres, the time, and XMP as DJI writes it. `truth.csv` has a row
    for each photo: WGS84 of the bare ground under the image's centre, true heading of the image's top, true
    width of the ground across the image's middle row, WGS84 of the camera, its height above ground, its tilt.
    A flight that is already there is left alone.

    quarters: neighbourhoods of 400 m along each side. processes: threads that render photos.
    Raises InputError for a number out of range, and if `output` holds anything but this very flight.
    """
    parameters = {"flight": GENERATOR, "photos": photos, "quarters": quarters, "seed": seed}
    check_range({**parameters, "processes": processes}, LIMITS)
    if is_complete(output, parameters):
        return
    with begun(output, parameters):
        _render(output, seed, photos, quarters, processes)


def _render(output: Path, seed: int, photos: int, quarters: int, threads: int) -> None:
    rng = np.random.default_rng([seed, 0])
    site, region = draw_site(rng), build_region(rng, quarters)
    crops = sow(region, rng)
    mapped = illuminate(with_crops(region, crops, rng), draw_sensor(rng, SURVEY), rng)
    side = round((quarters * SPACING_M - 2 * MAP_MARGIN_M) / MAP_PIXEL_M)
    picture = nadir(mapped, side * MAP_PIXEL_M, (0.0, 0.0), side, rng)
    write_bytes(output / "map.tif", geotiff(picture, site))
    del mapped, picture
    world = with_crops(region, resow(crops, rng), rng)
    lit = illuminate(world, draw_sensor(rng, DRONE), rng).softened()
    shots = fly(rng, region.terrain, CELL_M, photos, PHOTO_SIZE)
    names = [f"flight_{number:04d}.jpg" for number in range(1, photos + 1)]
    write_bytes(output / "truth.csv", truth_table(names, shots, region.terrain, site).encode())

    def render(number: int) -> None:
        own = np.random.default_rng([seed, 1, number])
        content = tagged_jpeg(
            photograph(world, lit, shots[number].view, own), shots[number], shots[0], site, own
        )
        write_bytes(output / "photos" / names[number], content)

    with ThreadPoolExecutor(threads) as pool, progress("rendering", photos, "photos") as advance:
        for _ in pool.map(render, range(photos)):
            advance(1)


def geotiff(picture: Picture, site: Site) -> bytes:
    """A square map about the site's middle [S, S, 3] as a tiled GeoTIFF, compressed as maps mostly are."""
    side = len(picture)
    corner = (site.east - side * MAP_PIXEL_M / 2, site.north + side * MAP_PIXEL_M / 2)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8",
        "crs": f"EPSG:{site.epsg}",
        "transform": Affine(MAP_PIXEL_M, 0, corner[0], 0, -MAP_PIXEL_M, corner[1]),
        "tiled": True, "compress": "JPEG", "jpeg_quality": 88, "photometric": "YCBCR", "interleave": "pixel",
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(np.moveaxis(picture, -1, 0))
        return bytes(memory.read())


def truth_table(names: list[str], shots: list[Shot], terrain: FloatField, site: Site) -> str:
    """`truth.csv` as `write_flight` describes it."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, shot in zip(names, shots, strict=True):
        view = shot.view
        middle = [np.array(side / 2) for side in view.size]
        ground = ground_points(view, middle[0], middle[1], terrain, CELL_M)
        convergence, scale = site.grid_north(float(ground[0]), float(ground[1]))
        slant = float(np.linalg.norm(ground - np.array(view.position)))
        width = 2 * slant * np.tan(view.field_of_view / 2) * scale
        place = site.to_wgs84(float(ground[0]), float(ground[1]))
        camera = site.to_wgs84(view.position[0], view.position[1])
        heading = (np.degrees(view.heading) + convergence) % 360
        degrees = [f"{value:.8f}" for value in place], [f"{value:.8f}" for value in camera]
        rest = [f"{value:.2f}" for value in (shot.height_m, np.degrees(view.tilt))]
        writer.writerow([name, *degrees[0], f"{heading:.3f}", f"{width:.3f}", *degrees[1], *rest])
    return table.getvalue()
