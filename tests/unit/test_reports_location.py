"""Rows of where photos were taken: table, GeoJSON, footprints, georeferenced photos, control points."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Geod, Transformer

from cvgl_ray.errors import InputError
from cvgl_ray.reports.georeference import (
    georeference,
    pixels_of,
    utm_epsg,
    write_gcp_list,
    write_geotiffs,
    write_world_files,
)
from cvgl_ray.reports.location import Location, footprint, write_locations

WGS84 = Geod(ellps="WGS84")
FOUND = Location("a.jpg", True, 52.0, 11.3, 30.0, 120.0, 3.21, 0.9)
LOST = Location("sub/b.jpg", False, 52.0, 11.3, 30.0, 120.0, 3.2, 0.1, reason="two places are alike")
SOUTH = Location("c.jpg", True, -43.6, 172.4, 275.0, 80.0, 5.0, 0.5)


def test_the_table_and_the_geojson_hold_the_same_rows(tmp_path: Path):
    write_locations(tmp_path, [FOUND, LOST, SOUTH], {"a.jpg": 0.5})
    with (tmp_path / "locations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "image_id": "a.jpg",
        "latitude": "52.0000000",
        "longitude": "11.3000000",
        "heading_deg": "30.0",
        "ground_width_m": "120.0",
        "error_m": "3.2",
        "confidence": "0.900",
        "found": "true",
    }
    assert [rows[1][name] for name in ("latitude", "heading_deg", "error_m")] == ["", "", ""]
    assert (rows[1]["confidence"], rows[1]["found"]) == ("0.100", "false")
    features = json.loads((tmp_path / "locations.geojson").read_text())["features"]
    kinds = [(f["properties"]["image_id"], f["geometry"] and f["geometry"]["type"]) for f in features]
    assert kinds == [
        ("a.jpg", "Point"), ("a.jpg", "Polygon"), ("sub/b.jpg", None), ("c.jpg", "Point"),
        ("c.jpg", "Polygon"),
    ]  # fmt: skip
    assert features[0]["geometry"]["coordinates"] == [11.3, 52.0]
    assert features[2]["properties"]["reason"] == "two places are alike"
    area, length = WGS84.polygon_area_perimeter(*np.array(features[1]["geometry"]["coordinates"][0]).T)
    assert area == pytest.approx(120 * 60, rel=1e-3)  # positive: against the clock, as RFC 7946 asks
    assert length == pytest.approx(2 * (120 + 60), rel=1e-3)


@pytest.mark.parametrize("location", [FOUND, SOUTH])
def test_a_footprint_begins_at_the_images_upper_left_and_has_its_heading(location: Location):
    corners = footprint(location, 0.75)
    assert corners is not None
    upper_left, upper_right, _, lower_left = corners
    along = WGS84.inv(upper_left[1], upper_left[0], upper_right[1], upper_right[0])
    up = WGS84.inv(lower_left[1], lower_left[0], upper_left[1], upper_left[0])
    assert along[2] == pytest.approx(location.ground_width_m, rel=1e-4)
    assert up[2] == pytest.approx(0.75 * location.ground_width_m, rel=1e-4)
    assert up[0] % 360 == pytest.approx(location.heading_deg, abs=0.01)
    assert footprint(LOST) is None


def test_a_footprint_is_the_ground_under_the_corners_where_it_is_known(tmp_path: Path):
    corners = ((52.002, 11.298), (52.002, 11.302), (51.999, 11.301), (51.999, 11.299))
    write_locations(tmp_path, [replace(FOUND, corners=corners)])
    _, shown = json.loads((tmp_path / "locations.geojson").read_text())["features"]
    [ring] = shown["geometry"]["coordinates"]
    assert ring[0] == ring[-1] == [11.298, 52.002]
    assert sorted(ring[:4]) == sorted([b, a] for a, b in corners)
    assert WGS84.polygon_area_perimeter(*np.array(ring).T)[0] > 0  # against the clock


@pytest.mark.parametrize("location", [FOUND, SOUTH])
def test_a_georeferenced_photo_has_its_corners_where_the_footprint_has_them(location: Location):
    placed = georeference(location, (400, 300))
    assert placed is not None
    corners = np.array(footprint(location, 0.75))
    columns, rows = pixels_of(placed, corners[:, 0], corners[:, 1])
    np.testing.assert_allclose(columns, [0, 400, 400, 0], atol=0.1)
    np.testing.assert_allclose(rows, [0, 0, 300, 300], atol=0.1)


def test_utm_zones():
    assert [utm_epsg(*place) for place in ((52.0, 11.3), (-43.6, 172.4), (0.0, -180.0), (1.0, 180.0))] == [
        32632, 32759, 32601, 32601,
    ]  # fmt: skip


def test_geotiffs_and_world_files_put_a_pixel_on_the_same_ground(tmp_path: Path):
    picture = Image.new("RGB", (400, 300), (120, 120, 120))
    locations = [FOUND, LOST, SOUTH]
    assert write_geotiffs(tmp_path, locations, lambda name: picture) == 2
    assert (
        write_world_files(tmp_path, locations, dict.fromkeys(["a.jpg", "sub/b.jpg", "c.jpg"], (400, 300)))
        == 2
    )
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs.to_epsg() == 32632
        assert raster.read().shape == (3, 300, 400)
        t = raster.transform
        middle = (t.a * 200 + t.b * 150 + t.c, t.d * 200 + t.e * 150 + t.f)
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(*middle)
    assert WGS84.inv(lon, lat, 11.3, 52.0)[2] < 0.01
    a, d, b, e, c, f = map(float, (tmp_path / "a.wld").read_text().split())
    np.testing.assert_allclose((a, b, d, e), (t.a, t.b, t.d, t.e), atol=1e-9)
    np.testing.assert_allclose((c, f), (t.a / 2 + t.b / 2 + t.c, t.d / 2 + t.e / 2 + t.f), atol=1e-6)
    assert "UTM" in (tmp_path / "a.prj").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.prj", "a.tif", "a.wld", "c.prj", "c.tif", "c.wld",
    ]  # fmt: skip


def test_control_points_are_marked_in_every_photo_that_shows_them(tmp_path: Path):
    def at(name: str, north_m: float, heading: float) -> Location:
        longitude, latitude, _ = WGS84.fwd(11.3, 52.0, 0.0, north_m)
        return Location(name, True, latitude, longitude, heading, 100.0)

    locations = [at("a.jpg", 0, 0), at("b.jpg", 20, 90), at("c.jpg", 40, 180), at("far.jpg", 900, 0)]
    sizes = {location.image_id: (1000, 1000) for location in locations}
    assert write_gcp_list(tmp_path / "gcp_list.txt", locations, sizes) == 3
    header, *lines = (tmp_path / "gcp_list.txt").read_text().splitlines()
    assert header == "EPSG:4326"
    seen = {(name, photo): (float(x), float(y)) for *_, x, y, photo, name in map(str.split, lines)}
    assert len(seen) == 9
    np.testing.assert_allclose(seen["a.jpg", "a.jpg"], (500, 500), atol=0.1)
    np.testing.assert_allclose(
        seen["a.jpg", "c.jpg"], (500, 100), atol=0.5
    )  # 40 m before it, which looks south
    np.testing.assert_allclose(seen["c.jpg", "b.jpg"], (300, 500), atol=0.5)  # 20 m north is left of east
    assert {line.split()[2] for line in lines} == {"0.00"}
    with pytest.raises(InputError, match="has a space in its name"):
        write_gcp_list(tmp_path / "gcp_list.txt", [at("my photo.jpg", 0, 0)], {"my photo.jpg": (9, 9)})
