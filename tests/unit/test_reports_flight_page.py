"""The page of a localisation: what it says, that it needs nothing else, and the map beside each photo."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine

from cvgl_ray.maps.geomap import GeoMap, open_map
from cvgl_ray.reports import flight_page
from cvgl_ray.reports.flight_page import colour_of, scale_bar, summarise, write_page
from cvgl_ray.reports.location import Location
from cvgl_ray.reports.map_picture import MapPicture, map_picture, map_under

EAST, NORTH, MPP = 600_000.0, 5_760_000.0, 0.5


@pytest.fixture(scope="module")
def geomap(tmp_path_factory: pytest.TempPathFactory) -> GeoMap:
    """A grey square of 200 m with a red arm to the north of its middle and a blue one to the east."""
    pixels = np.full((400, 400, 3), 128, np.uint8)
    pixels[100:200, 190:210] = (255, 0, 0)
    pixels[190:210, 210:300] = (0, 0, 255)
    path = tmp_path_factory.mktemp("map") / "map.tif"
    profile = {"driver": "GTiff", "width": 400, "height": 400, "count": 3, "dtype": "uint8"}
    transform = Affine(MPP, 0, EAST, 0, -MPP, NORTH)
    with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=transform) as raster:
        raster.write(np.moveaxis(pixels, -1, 0))
    return open_map([str(path)])


def middle(geomap: GeoMap) -> tuple[float, float]:
    latitude, longitude = geomap.frame.to_wgs84(*geomap.bounds.centre)
    return float(latitude), float(longitude)


def test_the_map_picture_has_places_where_it_shows_them(geomap: GeoMap):
    picture = map_picture(geomap, longest_px=300)
    assert max(picture.image.size) == 300
    pixels = np.asarray(picture.image).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 60))
    latitude, longitude = middle(geomap)
    here = [float(value[0]) for value in picture.place(np.array([latitude]), np.array([longitude]))]
    assert here == pytest.approx([picture.image.width / 2, picture.image.height / 2], abs=1)
    scale = picture.metres_per_pixel
    assert columns.mean() == pytest.approx(here[0], abs=2)
    assert here[1] - rows.min() == pytest.approx(50 / scale, abs=2)


@pytest.mark.parametrize(
    ("heading", "red_at", "blue_at"), [(0, (50, 25), (75, 50)), (90, (25, 50), (50, 25))]
)
def test_the_map_under_a_photo_is_turned_to_its_heading(
    geomap: GeoMap, heading: float, red_at: tuple[int, int], blue_at: tuple[int, int]
):
    location = Location("a.jpg", True, *middle(geomap), heading, 100.0)
    shown = map_under(geomap, location, (100, 100))
    assert shown is not None
    assert shown.size == (100, 100)
    red, blue = shown.getpixel(red_at), shown.getpixel(blue_at)
    assert isinstance(red, tuple)
    assert isinstance(blue, tuple)
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]
    assert map_under(geomap, Location("b.jpg", True, *middle(geomap)), (10, 10)) is None


class Reader(HTMLParser):
    """Tags that stay open, what is fetched, ids, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.targets += [value for key in ("src", "href", "action") if (value := named.get(key))]
        if "id" in named:
            self.ids.append(str(named["id"]))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [str(value) for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path, locations: list[Location], **more: Any) -> tuple[str, Reader]:
    picture = MapPicture(Image.new("RGB", (400, 300)), lambda lat, lon: (lon * 100, 200 - lat * 100), 2.0)
    write_page(
        path,
        locations,
        map_picture=picture,
        photo=lambda name: None if name == "gone.jpg" else Image.new("RGB", (64, 48), (90, 120, 60)),
        crop=lambda location, size: Image.new("RGB", size),
        **more,
    )
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return path.read_text(encoding="utf-8"), reader


EVIL = '<script>alert("1")</script>&\'.jpg'
ROWS = [
    Location("sure.jpg", True, 1.0, 2.0, 10.0, 100.0, 2.0, 0.95),
    Location(EVIL, False, confidence=0.05, reason="<b>blank</b> & grey"),
    Location("unsure.jpg", True, 1.1, 2.1, 350.0, 100.0, 20.0, 0.3),
]


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path):
    html, reader = page_of(
        tmp_path / "report.html", ROWS, title="A <flight> & its map", notes=["left out: <x>"]
    )
    assert reader.open == []
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in reader.targets)
    assert not re.search(r"url\(|@import|https?://|//\w", re.sub(r"base64,[^\"]+", "", html))
    assert {target[1:] for target in reader.targets if target.startswith("#")} <= set(reader.ids)
    assert "Content-Security-Policy" in html


def test_whatever_a_name_holds_is_text(tmp_path: Path):
    html, reader = page_of(
        tmp_path / "report.html",
        ROWS,
        title="A <flight>",
        notes=["<x>"],
        priors=["<y>"],
        parameters={"<k>": "<v>"},
    )
    assert html.count("<script") == 1
    assert "<b>blank" not in html
    for text in (EVIL, "<b>blank</b> & grey", "A <flight>", "<x>", "<y>", "<k>", "<v>"):
        assert text in reader.text


def test_the_least_certain_come_first_and_figures_are_told(tmp_path: Path):
    metrics = {"queries": 3, "found": 2, "median_m": None, "within": {"5": 33.3, "100": 66.7}}
    truth = {"sure.jpg": (1.0, 2.0001), "unsure.jpg": (float("nan"), float("nan"))}
    _, reader = page_of(tmp_path / "report.html", ROWS, metrics=metrics, truth=truth)
    assert [name for name in reader.ids if name.startswith("p")] == ["p2", "p3", "p1"]
    for text in (
        "2 of 3 photos were found",
        "∞",
        "66.7 %",
        "1.000000, 2.000000",
        "off by 11 m",
        "not found 0.05",
    ):
        assert text in reader.text
    assert reader.text.count("off by") == 1
    assert "Nothing: position, heading and ground width" in reader.text
    assert summarise(ROWS)["error_m"] == 11.0


def test_a_page_without_photos_found_and_of_very_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, reader = page_of(tmp_path / "none.html", [Location("gone.jpg", False, reason="it is cut off")])
    for text in ("0 of 1 photos", "the photo cannot be shown", "it is cut off"):
        assert text in reader.text
    monkeypatch.setattr(flight_page, "MOST_CARDS", 10)
    many = [Location(f"{i}.jpg", True, 1.0, 2.0 + i / 100, 0.0, 50.0, 1.0, i / 100) for i in range(100)]
    _, reader = page_of(tmp_path / "many.html", many)
    assert "10 of 100 photos are shown" in reader.text
    cards = [name for name in reader.ids if name.startswith("p")]
    assert cards[:5] == ["p1", "p2", "p3", "p4", "p5"]
    assert len(set(cards)) == 10
    assert {target[1:] for target in reader.targets if target.startswith("#")} == set(cards)


def test_colours_and_the_scale_bar():
    assert colour_of(0.0) == "#d55e00"
    assert colour_of(1.0) == "#006ebe"
    assert colour_of(None) == "#6b7280"
    picture = MapPicture(Image.new("RGB", (1000, 500)), lambda lat, lon: (lon, lat), 7.0)
    assert scale_bar(picture) == {"label": "1 km", "percent": pytest.approx(100 / 7)}
