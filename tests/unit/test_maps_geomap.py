"""Where a map's pixels lie: every georeference against pyproj's geodesics, within a tenth of a pixel."""

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Geod, Transformer
from rasterio.transform import Affine
from rasters import SPOT, gcps_of, local_of, seen_spot, spot_picture, truth_of, write
from scipy import ndimage

from cvgl_ray.maps.frame import LocalFrame, Window, frame_about
from cvgl_ray.maps.geomap import open_map

UTM = Affine(0.5, 0, 396_000, 0, -0.5, 5_820_000)
TURNED = Affine.translation(396_000, 5_820_000) @ Affine.rotation(33) @ Affine.scale(0.5, -0.5)
SHEARED = TURNED @ Affine.shear(12, 0)
# Half a metre of ground at 60 degrees north is one metre of EPSG:3857.
MERCATOR = Affine(1.0, 0, 2_000_000, 0, -1.0, 8_399_738)
DEGREES = Affine(7e-6, 0, 13.4, 0, -4.5e-6, 52.5)
SWISS = Affine(0.5, 0, 2_600_000, 0, -0.5, 1_200_000)

GEOREFERENCES = {
    "utm": ("EPSG:32633", UTM),
    "rotated": ("EPSG:32633", TURNED),
    "sheared": ("EPSG:32633", SHEARED),
    "south up": ("EPSG:32633", Affine(0.5, 0, 396_000, 0, 0.5, 5_820_000)),
    "web mercator at 60 degrees": ("EPSG:3857", MERCATOR),
    "degrees": ("EPSG:4326", DEGREES),
    "degrees beyond 180": ("EPSG:4326", Affine(4.6e-6, 0, 179.9994, 0, -4.5e-6, -17.5)),
    "swiss": ("EPSG:2056", SWISS),
    "feet": ("EPSG:2263", Affine(1.6, 0, 980_000, 0, -1.6, 200_000)),
    "antimeridian": ("EPSG:3832", Affine(0.5, 0, 3_339_500, 0, -0.5, 1_000_000)),
}


# GDAL does not wrap control points in degrees across 180; in a projection they are fine.
OF_GCPS = ("utm", "rotated", "web mercator at 60 degrees", "degrees", "antimeridian")
CASES = [*((name, False) for name in GEOREFERENCES), *((name, True) for name in OF_GCPS)]


@pytest.mark.parametrize(("name", "gcps"), CASES)
def test_a_pixel_is_seen_where_pyproj_says_it_lies(tmp_path: Path, name: str, gcps: bool) -> None:
    crs, transform = GEOREFERENCES[name]
    options = {"gcps": gcps_of(transform)} if gcps else {}
    path = write(tmp_path / "map.tif", spot_picture(), crs, None if gcps else transform, **options)
    geomap = open_map(str(path))
    truth = local_of(geomap.frame, *truth_of(crs, transform))
    pixel = geomap.metres_per_pixel
    for scale in (0.5, 1.0, 1.9):  # finer than the file, alike, coarser
        seen = seen_spot(geomap, truth, scale * pixel)
        assert np.hypot(seen[0] - truth[0], seen[1] - truth[1]) < 0.1 * pixel
    # and back: local -> WGS84 -> the file's CRS -> pixel
    latitude, longitude = geomap.frame.to_wgs84(*truth)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    x = x % 360 if "180" in name else x
    assert np.allclose(~transform @ (x, y), SPOT, atol=0.01)


@pytest.mark.parametrize("name", ["utm", "rotated", "web mercator at 60 degrees", "degrees", "swiss"])
def test_the_quick_way_to_read_gives_what_gdal_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    crs, transform = GEOREFERENCES[name]
    picture = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (3, 200, 200)), (0, 2, 2))
    geomap = open_map(str(write(tmp_path / "map.tif", picture.astype(np.uint8), crs, transform)))
    east, north = geomap.bounds.centre
    inner = Window(east, north, east, north).grown(30 * geomap.metres_per_pixel)
    for scale in (0.7, 1.0):
        quick = geomap.read(inner, scale * geomap.metres_per_pixel)
        with monkeypatch.context() as patched:
            patched.setattr("cvgl_ray.maps.warp.AFFINE_PX", -1.0)  # never
            slow = geomap.read(inner, scale * geomap.metres_per_pixel)
        assert quick.valid.all()
        assert slow.valid.all()
        assert np.abs(quick.rgb.astype(int) - slow.rgb).max() <= 2


def test_metres_of_web_mercator_are_true_metres(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", spot_picture(), "EPSG:3857", MERCATOR)
    geomap = open_map(str(path))
    corners = [truth_of("EPSG:3857", MERCATOR, corner) for corner in ((0, 90), (240, 90))]
    assert corners[0][0] == pytest.approx(60, abs=0.01)
    _, _, ground = Geod(ellps="WGS84").inv(*corners[0][::-1], *corners[1][::-1])
    assert geomap.bounds.width_m == pytest.approx(ground, rel=1e-3)
    assert geomap.metres_per_pixel == pytest.approx(ground / 240, rel=2e-3)
    assert geomap.area_m2 == pytest.approx(ground * ground * 180 / 240, rel=0.01)


def test_a_window_partly_outside_is_masked(tmp_path: Path) -> None:
    geomap = open_map(str(write(tmp_path / "map.tif", spot_picture() // 2 + 60, "EPSG:32633", UTM)))
    bounds = geomap.bounds
    east, north = bounds.centre
    window = Window(bounds.west - 50, north - 20, bounds.west + 50, north + 20)
    pixels = geomap.read(window, 0.5)
    assert pixels.rgb.shape == (80, 200, 3)
    assert pixels.valid[:, :94].sum() == 0
    assert pixels.valid[:, 106:].all()
    assert (pixels.rgb[~pixels.valid] == 0).all()
    assert (pixels.rgb[pixels.valid] > 0).all()
    nowhere = geomap.read(Window(east + 5000, north, east + 5100, north + 50), 1.0)
    assert nowhere.rgb.shape == (50, 100, 3)
    assert not nowhere.valid.any()


def test_tiles_of_a_turned_map_cover_it_once_and_stay_when_it_grows(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tif", spot_picture(), "EPSG:32633", TURNED)
    second = write(tmp_path / "b.tif", spot_picture(), "EPSG:32633", TURNED @ Affine.translation(240, 0))
    small, large = open_map(str(first)), open_map([str(first), str(second)])
    tiles = small.tiles(25.0, margin_m=5.0)
    assert all(tile.window == tile.core.grown(5) for tile in tiles)
    area = sum(tile.core.width_m * tile.core.height_m for tile in tiles)
    assert len({(tile.row, tile.column) for tile in tiles}) == len(tiles)
    assert (
        small.area_m2 < area < 2 * small.area_m2
    )  # 120 m x 90 m, turned: the bounds alone would be 2.0 times
    east, north = np.random.default_rng(0).uniform(-200, 200, (2, 500))
    middle = small.bounds.centre
    east, north = east + middle[0], north + middle[1]
    on = small.covers(east, north)
    assert 0 < on.sum() < 500
    cores = np.array([tile.core for tile in tiles])
    held = (
        (east[:, None] >= cores[:, 0])
        & (east[:, None] < cores[:, 2])
        & (north[:, None] >= cores[:, 1])
        & (north[:, None] < cores[:, 3])
    )
    assert (held.sum(axis=1)[on] == 1).all()
    assert large.frame == small.frame
    kept = {(tile.row, tile.column): large.identity(tile.window) for tile in large.tiles(25.0, 5.0)}
    same = [kept[tile.row, tile.column] == small.identity(tile.window) for tile in tiles]
    assert 0.5 < np.mean(same) < 1  # those beside the new file alone are another picture now


def test_files_of_a_mosaic_may_overlap_and_differ_in_crs(tmp_path: Path) -> None:
    """The left half in UTM, the whole in Web Mercator and coarser: the finer file is on top."""
    write(tmp_path / "fine.tif", np.full((3, 180, 120), 200, np.uint8), "EPSG:32633", UTM)
    to_mercator = Transformer.from_crs("EPSG:32633", "EPSG:3857", always_xy=True)
    x, y = to_mercator.transform(396_000, 5_820_000)
    write(
        tmp_path / "coarse.tif",
        np.full((3, 60, 80), 90, np.uint8),
        "EPSG:3857",
        Affine(2.5, 0, x, 0, -2.5, y),
    )
    geomap = open_map(str(tmp_path))
    assert geomap.metres_per_pixel == pytest.approx(0.5, rel=1e-3)
    left = local_of(geomap.frame, *truth_of("EPSG:32633", UTM, (60, 90)))
    right = local_of(geomap.frame, *truth_of("EPSG:32633", UTM, (180, 90)))
    assert geomap.covers(*np.array([left, right]).T).all()
    for (east, north), grey in ((left, 200), (right, 90)):
        pixels = geomap.read(Window(east - 5, north - 5, east + 5, north + 5), 0.5)
        assert pixels.valid.all()
        assert (pixels.rgb == grey).all()


def test_overviews_are_used_and_a_coarse_picture_is_averaged(tmp_path: Path) -> None:
    """A board of black and white px is grey from afar; with overviews of another value these are seen."""
    board = np.broadcast_to((np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8), (3, 512, 512))
    path = write(tmp_path / "map.tif", board, "EPSG:32633", UTM, tiled=True)
    window = open_map(str(path)).bounds.grown(-20)
    grey = open_map(str(path)).read(window, 4.0)
    assert grey.valid.all()
    assert np.abs(grey.rgb.astype(int) - 127).max() <= 3
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.nearest)  # of one colour of the board
    seen = open_map(str(path)).read(window, 4.0)
    assert len(np.unique(seen.rgb)) == 1
    assert seen.rgb.max() in (0, 255)


def test_a_map_travels_to_another_process_and_its_identity_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", spot_picture(), "EPSG:32633", UTM)
    geomap = open_map(str(path))
    window = Window(*(round(edge) for edge in geomap.bounds))
    copy = pickle.loads(pickle.dumps(geomap))
    assert (copy.read(window, 0.5).rgb == geomap.read(window, 0.5).rgb).all()
    assert open_map(str(path)).identity(window) == geomap.identity(window)
    write(path, spot_picture(), "EPSG:32633", Affine(0.5, 0, 396_001, 0, -0.5, 5_820_000))
    assert open_map(str(path)).identity(window) != geomap.identity(window)


def test_a_uri_is_read_through_pyarrow(tmp_path: Path) -> None:
    folder = tmp_path / "a b"  # its URI is percent-encoded
    folder.mkdir()
    path = write(folder / "map.tif", spot_picture(), "EPSG:32633", TURNED)
    here, there = open_map(str(path)), open_map(path.as_uri())
    assert (here.read(here.bounds, 1.0).rgb == there.read(here.bounds, 1.0).rgb).all()
    assert open_map(folder.as_uri()).bounds == here.bounds


def test_the_frame_is_a_geodesic_one_and_crosses_the_antimeridian() -> None:
    frame = frame_about(np.array([-17.1, -17.3]), np.array([179.9, -179.7]))
    assert (frame.latitude, abs(frame.longitude)) == (-17.2, 179.9)
    east, north = frame.to_local(-17.4, 179.95)
    assert np.allclose((east, north), local_of(frame, -17.4, 179.95), atol=1e-4)
    assert np.allclose(frame.to_wgs84(east, north), (-17.4, 179.95))
    pole = frame_about(np.array([89.9, 89.9]), np.array([0.0, 180.0]))
    assert pole.latitude == 90
    window = Window(0, 0, 30, 20)
    assert window.size(2.0) == (10, 15)
    assert window.from_pixel(*window.to_pixel(7.0, 3.0, 2.0), 2.0) == (7.0, 3.0)
    assert LocalFrame(52.0, 13.0).to_local(52.0, 13.0) == (0.0, 0.0)


def test_a_huge_sparse_map_is_read_in_little_memory(tmp_path: Path) -> None:
    """20,480 x 20,480 px, one written block: far beyond Pillow's limit; the whole of it is seen from afar."""
    path = tmp_path / "huge.tif"
    profile = {"width": 20_480, "height": 20_480, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    options = {"tiled": True, "compress": "deflate", "sparse_ok": True, "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", transform=UTM, **profile, **options) as file:
        block = rasterio.windows.Window(10_240, 10_240, 512, 512)
        file.write(np.full((3, 512, 512), 99, np.uint8), window=block)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    geomap = open_map(str(path))
    assert geomap.area_m2 == pytest.approx(10_240**2, rel=0.01)
    east, north = local_of(geomap.frame, *truth_of("EPSG:32633", UTM, (10_496, 10_496)))
    near = geomap.read(Window(east - 64, north - 64, east + 64, north + 64), 0.5)
    assert near.valid.all()
    assert (near.rgb == 99).all()
    far = geomap.read(Window(east - 1280, north - 1280, east + 1280, north + 1280), 10.0)
    assert near.valid.sum() * 0.25 == pytest.approx(far.valid.sum() * 100 / 4, rel=0.1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB; the file has 1.3 GB
