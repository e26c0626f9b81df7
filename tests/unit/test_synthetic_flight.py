"""A rendered flight: the camera against its truth, the map's georeference, what the files say."""

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Geod, Transformer
from test_synthetic_cameras import centroid, even_light, redness

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.truth import read_truth
from cvgl_ray.maps.footprint import footprint
from cvgl_ray.maps.geomap import open_map
from cvgl_ray.maps.metadata import read_info
from cvgl_ray.synthetic.aerial import View, ground_points, photograph
from cvgl_ray.synthetic.camera import nadir
from cvgl_ray.synthetic.rays import LEVEL_M, march
from cvgl_ray.synthetic.region import build_region
from cvgl_ray.synthetic.sensor import illuminate
from cvgl_ray.synthetic.site import PLACES, Site
from cvgl_ray.synthetic.survey import geotiff, write_flight
from cvgl_ray.synthetic.world import World

WGS84 = Geod(ellps="WGS84")
CELL_M, CELLS = 0.4, 800
MARKS = ((60.0, -35.0), (-52.0, 20.0), (10.0, 66.0))  # east, south of red squares on grey ground


def marked_world(terrain: np.ndarray) -> World:
    """Bare grey ground of these heights with a red square of 4 m at each mark."""
    axis = (np.arange(CELLS) + 0.5) * CELL_M - CELLS * CELL_M / 2
    albedo = np.full((CELLS, CELLS, 3), 120, np.uint8)
    for east, south in MARKS:
        albedo[(np.abs(axis[:, None] - south) < 2) & (np.abs(axis[None] - east) < 2)] = (250, 10, 10)
    none, zeros = np.zeros(1, np.float32), np.zeros((CELLS, CELLS), np.float32)
    slots, grey = np.empty((0, 3), np.float32), np.full((1, 3), 120, np.float32)
    building = np.zeros((CELLS, CELLS), np.int32)
    return World(terrain, albedo, zeros, zeros, building, none, grey, none, slots, CELL_M)


def rolling() -> np.ndarray:
    """Ground that rises and falls by 4 m over 150 m."""
    axis = np.arange(CELLS) * CELL_M / 24
    return (4 + 2 * np.sin(axis[:, None]) + 2 * np.cos(axis[None])).astype(np.float32)


def at_ground(terrain: np.ndarray, mark: tuple[float, float]) -> np.ndarray:
    col, row = ((np.array(mark) + CELLS * CELL_M / 2) / CELL_M).astype(int)
    return np.array([*mark, terrain[row, col]])


@pytest.mark.parametrize(("heading_deg", "tilt_deg"), [(0, 0), (75, 12), (110, 20), (310, 5)])
def test_a_mark_appears_in_the_photo_where_the_pinhole_camera_puts_it(heading_deg: float, tilt_deg: float):
    terrain = rolling()
    world = marked_world(terrain)
    lit = illuminate(world, even_light((1e-3, 0.0, 1.0)), np.random.default_rng(0)).softened()
    mark = at_ground(terrain, MARKS[0])
    view = View(
        (48.0, -30.0, 100.0), np.radians(heading_deg), np.radians(tilt_deg), np.radians(70), (320, 240)
    )
    # Turned so that the mark lies before the camera, then projected by hand: east-south-up to right-up-ahead.
    heading, tilt = np.radians(heading_deg), np.radians(tilt_deg)
    east, north, up = (mark - np.array(view.position)) * (1, -1, 1)
    forward, right = (
        east * np.sin(heading) + north * np.cos(heading),
        east * np.cos(heading) - north * np.sin(heading),
    )
    depth, top = forward * np.sin(tilt) - up * np.cos(tilt), forward * np.cos(tilt) + up * np.sin(tilt)
    focal = 160 / np.tan(np.radians(35))
    expected = 160 + focal * right / depth, 120 - focal * top / depth
    red = redness(photograph(world, lit, view, np.random.default_rng(0)))
    col, row = (round(value) for value in expected)
    assert 20 < col < 300
    assert 20 < row < 220
    near = np.zeros_like(red)
    near[row - 20 : row + 20, col - 20 : col + 20] = red[row - 20 : row + 20, col - 20 : col + 20]
    np.testing.assert_allclose(centroid(near), expected, atol=1.0)
    found = ground_points(view, np.array(expected[0]), np.array(expected[1]), terrain, CELL_M)
    np.testing.assert_allclose(found, mark, atol=0.5)


def test_rays_that_start_low_find_what_rays_that_try_every_level_find():
    world = build_region(np.random.default_rng(5), quarters=1).world
    view = View((40.0, 30.0, 130.0), 1.0, np.radians(18), np.radians(70), (64, 48))
    directions = view.directions(np.arange(64) + 0.5, np.arange(48)[:, None] + 0.5)
    rays = (directions[:2] / directions[2]).astype(np.float32)
    contact, above = march(world, np.array(view.position, np.float32), rays)
    expected = np.full(rays[0].shape, np.nan)
    for level in np.arange(world.height.max(), world.height.min() - LEVEL_M, -LEVEL_M, dtype=np.float32):
        col, row = (
            (rays[axis] * (level - 130.0) + view.position[axis] + world.half_m) / CELL_M for axis in (0, 1)
        )
        hit = np.isnan(expected) & (world.height[row.astype(int) % 1000, col.astype(int) % 1000] >= level)
        expected[hit] = level
    # A contact is refined between the level that hits and the one above.
    offset = contact.reshape(expected.shape) - expected
    assert np.mean((offset >= -1e-3) & (offset <= LEVEL_M)) > 0.999  # else: rounded to the neighbouring cell
    assert (above > contact).all()


@pytest.mark.parametrize(("latitude", "longitude", "epsg"), PLACES[::2])
def test_the_map_shows_a_mark_at_its_coordinates(latitude: float, longitude: float, epsg: int):
    east, north = Transformer.from_crs(4326, epsg, always_xy=True).transform(longitude, latitude)
    site = Site(epsg, round(east), round(north), 100.0)
    flat = np.zeros((CELLS, CELLS), np.float32)
    lit = illuminate(marked_world(flat), even_light((1e-3, 0.0, 1.0)), np.random.default_rng(0))
    picture = nadir(lit, 300.0, (0.0, 0.0), 750, np.random.default_rng(0))
    with rasterio.MemoryFile(geotiff(picture, site)) as memory, memory.open() as raster:
        assert raster.crs.to_epsg() == epsg
        red = redness(np.moveaxis(raster.read(), 0, -1))
        for mark in MARKS:
            lat, lon = site.to_wgs84(*mark)
            x, y = Transformer.from_crs(4326, raster.crs, always_xy=True).transform(lon, lat)
            grid = raster.transform
            col, row = (x - grid.c) / grid.a, (y - grid.f) / grid.e
            near = np.zeros_like(red)
            window = np.s_[int(row) - 12 : int(row) + 12, int(col) - 12 : int(col) + 12]
            near[window] = red[window]
            np.testing.assert_allclose(centroid(near), (col, row), atol=0.5)


# What lies on disk


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flight") / "small"
    write_flight(folder, seed=2, photos=2, quarters=1)
    return folder


def rows_of(flight: Path) -> list[dict[str, str]]:
    with (flight / "truth.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_truth_names_every_photo_and_lies_on_the_map(flight: Path):
    rows = rows_of(flight)
    assert [row["image_id"] for row in rows] == [f"flight_{n:04d}.jpg" for n in (1, 2)]
    assert sorted(path.name for path in (flight / "photos").iterdir()) == [row["image_id"] for row in rows]
    geomap = open_map([str(flight / "map.tif")])
    truth = read_truth(str(flight / "truth.csv"))
    assert geomap.covers(*geomap.frame.to_local(truth.latitude, truth.longitude)).all()
    assert geomap.area_m2 == pytest.approx(320.0**2, rel=0.01)
    for row in rows:
        assert 60 <= float(row["height_m"]) <= 150
        assert 0 <= float(row["tilt_deg"]) <= 20


def test_the_photos_say_where_they_were_taken_as_a_drone_does(flight: Path):
    times = []
    for row in rows_of(flight):
        content = (flight / "photos" / row["image_id"]).read_bytes()
        info = read_info(content)
        assert not info.notes
        assert (info.width_px, info.height_px) == (800, 600)
        assert info.latitude is not None
        assert info.longitude is not None
        camera = float(row["camera_longitude"]), float(row["camera_latitude"])
        assert WGS84.inv(*camera, info.longitude, info.latitude)[2] < 8.0
        turned = (info.heading_deg - float(row["heading_deg"]) + 180) % 360 - 180
        assert abs(turned) < 5.0
        assert info.gimbal_pitch_deg == pytest.approx(float(row["tilt_deg"]) - 90, abs=0.01)
        times.append(info.time)
        # The true height, heading and position of the camera lead to the true ground under the centre.
        ground = footprint(info, float(row["height_m"]))
        assert ground is not None
        assert ground.ground_width_m == pytest.approx(float(row["ground_width_m"]), rel=0.02)
        azimuth = np.degrees(np.arctan2(*ground.centre_offset)) - turned
        lon, lat, _ = WGS84.fwd(*camera, azimuth, np.hypot(*ground.centre_offset))
        assert WGS84.inv(lon, lat, float(row["longitude"]), float(row["latitude"]))[2] < 1.5
    assert times == sorted(times)
    assert len(set(times)) == 2


def test_map_and_photos_differ_as_two_days_do(flight: Path):
    with rasterio.open(flight / "map.tif") as raster:
        mapped = np.moveaxis(raster.read(), 0, -1).reshape(-1, 3).mean(axis=0)
    photos = [
        np.asarray(Image.open(path)).reshape(-1, 3).mean(axis=0) for path in (flight / "photos").iterdir()
    ]
    assert np.abs(mapped - np.mean(photos, axis=0)).max() > 5
    assert min(np.asarray(Image.open(path)).std() for path in (flight / "photos").iterdir()) > 15


def test_a_flight_is_the_same_bytes_again_whatever_the_threads_and_is_left_alone(
    flight: Path, tmp_path: Path
):
    write_flight(tmp_path, seed=2, photos=2, quarters=1, processes=2)
    files = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(files) == 2 + 3
    for name, path in files.items():
        assert path.read_bytes() == (flight / name).read_bytes(), name
    stamps = {path: path.stat().st_mtime_ns for path in files.values()}
    write_flight(tmp_path, seed=2, photos=2, quarters=1)
    assert stamps == {path: path.stat().st_mtime_ns for path in files.values()}
    with pytest.raises(InputError, match="holds a world of"):
        write_flight(tmp_path, seed=3, photos=2, quarters=1)
    with pytest.raises(InputError, match="photos is 1, give a whole number from 2"):
        write_flight(tmp_path / "new", photos=1)
