"""What a map may be: tiles, world files, tables of corners; and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine
from rasters import SIZE, local_of, seen_spot, spot_picture, truth_of, write

from cvgl_ray.errors import InputError
from cvgl_ray.maps.geomap import open_map
from cvgl_ray.maps.xyz import HALF_EQUATOR_M

UTM = Affine(0.5, 0, 396_000, 0, -0.5, 5_820_000)
ZOOM, X, Y = 18, 140_000, 86_000


def test_tiles_lie_where_their_numbers_say(tmp_path: Path) -> None:
    """A spot across a 3 x 2 block of tiles in each layout of folders; the lower zoom is its overview."""
    picture = spot_picture(768, 512, (520.0, 250.0))
    pixel = 2 * HALF_EQUATOR_M / (256 << ZOOM)
    corner = X * 256 * pixel - HALF_EQUATOR_M, HALF_EQUATOR_M - Y * 256 * pixel
    placed = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    for name, pattern in (
        ("deep", "{z}/{x}/{y}.png"),
        ("flat", "{z}_{x}_{y}.webp"),
        ("tms", "{z}/{x}/{y}.jpg"),
    ):
        folder = tmp_path / name
        _write_tiles(folder, pattern, picture, ZOOM, X, Y, tms=name == "tms")
        geomap = open_map(str(folder))
        truth = local_of(geomap.frame, *truth_of("EPSG:3857", placed, (520.0, 250.0)))
        for scale in (1.0, 1.9):
            seen = seen_spot(geomap, truth, scale * geomap.metres_per_pixel)
            assert np.hypot(seen[0] - truth[0], seen[1] - truth[1]) < 0.1 * geomap.metres_per_pixel
    (tmp_path / "deep" / str(ZOOM - 1) / str(X // 2)).mkdir(parents=True)
    for x in range(X // 2, X // 2 + 2):
        tile = tmp_path / "deep" / str(ZOOM - 1) / str(x) / f"{Y // 2}.png"
        tile.parent.mkdir(exist_ok=True)
        Image.new("RGB", (256, 256), (10, 20, 200)).save(tile)
    geomap = open_map(str(tmp_path / "deep"))
    assert geomap.metres_per_pixel == pytest.approx(
        pixel * np.cos(np.radians(geomap.frame.latitude)), rel=0.01
    )
    coarse = geomap.read(geomap.bounds, 4 * geomap.metres_per_pixel)
    assert coarse.valid[2:-2, 2:-2].all()
    assert (coarse.rgb[2:-2, 2:-2] == (10, 20, 200)).all()


def test_the_highest_complete_zoom_is_read_and_holes_are_masked(tmp_path: Path) -> None:
    picture = np.full((3, 1024, 1024), 120, np.uint8)
    _write_tiles(tmp_path, "{z}/{x}/{y}.png", picture, ZOOM, X, Y)
    _write_tiles(tmp_path, "{z}/{x}/{y}.png", picture[:, :256, :256], ZOOM + 1, 2 * X, 2 * Y)
    (tmp_path / str(ZOOM) / str(X + 1) / f"{Y + 2}.png").unlink()
    broken = tmp_path / str(ZOOM) / str(X + 2) / f"{Y + 1}.png"
    broken.write_bytes(broken.read_bytes()[:300])
    Image.new("RGB", (50, 40)).save(tmp_path / "preview.png")
    geomap = open_map(str(tmp_path))
    assert geomap.notes[0] == f"zoom {ZOOM + 1} is left out: it lacks 14 of the 15 tiles of zoom {ZOOM}"
    assert geomap.notes[1].startswith("'preview.png' and all else that is no tile is left out")
    pixels = geomap.read(geomap.bounds.grown(-5), geomap.metres_per_pixel)
    assert pixels.valid.mean() == pytest.approx(14 / 16, abs=0.02)
    assert len(pixels.damaged) == 1
    assert pixels.damaged[0].startswith(f"{ZOOM}/{X + 2}/{Y + 1}.png (")
    assert geomap.area_m2 == pytest.approx(geomap.bounds.width_m * geomap.bounds.height_m * 15 / 16, rel=0.01)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_with_a_world_file_needs_a_crs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map{suffix}"
    Image.fromarray(spot_picture().transpose(1, 2, 0)).save(path, quality=98)
    a, b, c, d, e, f = tuple(UTM @ Affine.rotation(20))[:6]
    centre = Affine(a, b, c, d, e, f) @ (0.5, 0.5)  # a world file names the first pixel's centre
    world = path.with_suffix(".pgw" if suffix == ".png" else ".jgw")
    world.write_text("\n".join(repr(value) for value in (a, d, b, e, *centre)))
    geomap = open_map(str(path), crs="EPSG:32633")
    truth = local_of(geomap.frame, *truth_of("EPSG:32633", Affine(a, b, c, d, e, f)))
    seen = seen_spot(geomap, truth, geomap.metres_per_pixel)
    assert np.hypot(seen[0] - truth[0], seen[1] - truth[1]) < 0.1 * geomap.metres_per_pixel
    with pytest.raises(InputError, match=r"world file.*no CRS: name it, such as --crs EPSG:32633"):
        open_map(str(path))
    with pytest.raises(InputError, match="the CRS 'EPSG:999999' is unknown"):
        open_map(str(path), crs="EPSG:999999")


@pytest.mark.parametrize("header", ["ours", "wildnav", "uav-visloc"])
def test_images_are_placed_by_a_table_of_two_corners(tmp_path: Path, header: str) -> None:
    names = {
        "ours": "image_id,top_left_latitude,top_left_longitude,bottom_right_latitude,bottom_right_longitude",
        "wildnav": "Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long",
        "uav-visloc": "mapname,LT_lat_map,LT_lon_map,RB_lat_map,RB_lon_map,region",
    }
    mercator = Affine(0.8, 0, 1_491_000, 0, -0.8, 6_894_000)
    Image.fromarray(spot_picture().transpose(1, 2, 0)).save(tmp_path / "part.png")
    corners = [truth_of("EPSG:3857", mercator, corner) for corner in ((0, 0), SIZE)]
    _write_table(tmp_path / "map.csv", names[header].split(","), ["part.png", *corners[0], *corners[1], "x"])
    geomap = open_map(str(tmp_path))
    truth = local_of(geomap.frame, *truth_of("EPSG:3857", mercator))
    seen = seen_spot(geomap, truth, geomap.metres_per_pixel)
    assert np.hypot(seen[0] - truth[0], seen[1] - truth[1]) < 0.1 * geomap.metres_per_pixel


def test_a_turned_image_is_placed_by_four_corners_and_exchanged_ones_are_said(tmp_path: Path) -> None:
    turned = UTM @ Affine.rotation(25)
    Image.fromarray(spot_picture().transpose(1, 2, 0)).save(tmp_path / "part.png")
    at = {"tl": (0, 0), "tr": (SIZE[0], 0), "br": SIZE, "bl": (0, SIZE[1])}
    corners = {name: truth_of("EPSG:32633", turned, corner) for name, corner in at.items()}
    header = ["image_id", *(f"{name}_{axis}" for name in at for axis in ("lat", "lon"))]
    table = tmp_path / "corners.csv"
    _write_table(table, header, ["part.png", *(value for name in at for value in corners[name])])
    geomap = open_map(str(tmp_path), crs="EPSG:32633")
    truth = local_of(geomap.frame, *truth_of("EPSG:32633", turned))
    seen = seen_spot(geomap, truth, geomap.metres_per_pixel)
    assert np.hypot(seen[0] - truth[0], seen[1] - truth[1]) < 0.1 * geomap.metres_per_pixel
    _write_table(table, header, ["part.png", *(value for name in at for value in corners[name][::-1])])
    with pytest.raises(InputError, match="probably latitude and longitude"):
        open_map(str(tmp_path), crs="EPSG:32633")
    _write_table(table, header, ["part.png", *[48.0, 100.0] * 4])
    with pytest.raises(InputError, match="corners"):
        open_map(str(tmp_path))
    _write_table(table, header, ["part.png", 100.0, 48.0, *[48.0, 100.0] * 3])
    with pytest.raises(
        InputError, match=r"latitude 100.0, longitude 48.0: latitude and longitude are exchanged"
    ):
        open_map(str(tmp_path))


def test_a_raster_without_georeference_is_refused_with_the_four_ways(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "map.png")
    for address in (tmp_path / "map.png", tmp_path):
        with pytest.raises(InputError) as caught:
            open_map(str(address))
        message = str(caught.value)
        assert "no georeference" in message or "has a georeference" in message
        for way in ("GeoTIFF", "XYZ tiles", "world file and --crs", "CSV of their corners"):
            assert way in message
        assert "\n" not in message


def test_other_bad_maps_are_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tif").write_text("no raster")
    Image.fromarray(spot_picture().transpose(1, 2, 0)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-300])
    write(tmp_path / "plane.tif", spot_picture(), 'LOCAL_CS["plane",UNIT["metre",1]]', UTM)
    write(tmp_path / "far.tif", spot_picture(), "EPSG:4326", Affine(1e-3, 0, 13.0, 0, -1e-3, 152.5))
    for name, sentence in {
        "nothing.tif": "there is no map",
        "empty": "holds no raster",
        "text.tif": "cannot be opened",
        "cut.png": "is cut off: copy it again",
        "plane.tif": "the CRS .* is unknown",
        "far.tif": "lie",
    }.items():
        with pytest.raises(InputError, match=sentence):
            open_map(str(tmp_path / name))
    with pytest.raises(InputError, match="no map is named"):
        open_map([])
    write(tmp_path / "empty" / "good.tif", spot_picture(), "EPSG:32633", UTM)
    (tmp_path / "empty" / "bad.tif").write_text("no raster")
    Image.new("RGB", (50, 40)).save(tmp_path / "empty" / "preview.png")
    notes = open_map(str(tmp_path / "empty")).notes
    assert len(notes) == 2
    assert "bad.tif" in notes[0]
    assert "preview.png" in notes[1]


def _write_tiles(
    folder: Path, pattern: str, picture: np.ndarray, zoom: int, x0: int, y0: int, tms: bool = False
) -> None:
    for row in range(picture.shape[1] // 256):
        for column in range(picture.shape[2] // 256):
            y = y0 + row
            number = (1 << zoom) - 1 - y if tms else y
            path = folder / pattern.format(z=zoom, x=x0 + column, y=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            tile = picture[:, row * 256 : row * 256 + 256, column * 256 : column * 256 + 256]
            options = (
                {"lossless": True}
                if path.suffix == ".webp"
                else {"quality": 98}
                if path.suffix == ".jpg"
                else {}
            )
            Image.fromarray(np.ascontiguousarray(tile.transpose(1, 2, 0))).save(path, **options)
    if tms:
        (folder / "tilemapresource.xml").write_text("<TileMap/>")


def _write_table(path: Path, header: list[str], row: list[object]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, row[: len(header)]])
