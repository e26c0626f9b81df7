"""The job of `localize --map` as a whole, on a drawn flight: what it leaves, finds again and learns."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import NAMES, SHOTS, SMALL, place, write_map, write_photos, write_truth
from pyproj import Geod
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cvgl_ray
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.localization.cell_bundle import load_cell_bundle
from cvgl_ray.localization.cell_files import BlockKey, MadeBlock
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.request import Answer, Request
from cvgl_ray.localization.run import frozen, load_map_config, localize_map
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.work import MadePhoto, WorkHere
from cvgl_ray.maps.metadata import PhotoInfo

CONFIG = load_config(None, SMALL)
WGS84 = Geod(ellps="WGS84")


class StoppedError(Exception):
    """A run was ended on purpose."""


@dataclass(frozen=True)
class StoppingWork(WorkHere):
    """Notes which cells have to be made, and ends the run after so many, or when it begins to search."""

    made: list[str]
    most: int = 1000

    def photos(
        self, lacking: Sequence[tuple[PhotoFile, list[int]]], headings: Sequence[float]
    ) -> Iterator[MadePhoto]:
        for photo, sides in lacking:
            self._note(photo.image_id)
            yield from super().photos([(photo, sides)], headings)

    def blocks(self, keys: Sequence[BlockKey]) -> Iterator[MadeBlock]:
        for key in keys:
            self._note(key.digest)
            yield from super().blocks([key])

    def search(self, survey: Survey, adapter: CellAdapter) -> list[Peaks]:
        raise StoppedError

    def _note(self, name: str) -> None:
        if len(self.made) == self.most:
            raise StoppedError
        self.made.append(name)


def made_by(asked: Request, output: Path, most: int = 1000) -> list[str]:
    """Which photos' and blocks' cells a run makes before it searches, or before it is ended."""
    made: list[str] = []
    with pytest.raises(StoppedError):
        localize_map(CONFIG, asked, output, lambda model, geomap, *_: StoppingWork(model, geomap, made, most))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with map.tif, photos and truth.csv."""
    folder = tmp_path_factory.mktemp("world")
    write_map(folder / "map.tif")
    write_photos(folder / "photos")
    write_photos(folder / "two", NAMES[:2])
    write_truth(folder / "truth.csv")
    return folder


def request(world: Path, photos: str = "photos", **more: Any) -> Request:
    return Request([str(world / "map.tif")], [str(world / photos)], **more)


@pytest.fixture(scope="module")
def answer(world: Path) -> Answer:
    """Of the run into world/run, whose cells the other runs find."""
    asked = request(world, truth=str(world / "truth.csv"), write=("world", "geotiff", "gcp"))
    return localize_map(CONFIG, asked, world / "run")


def test_photos_lie_where_they_were_taken(answer: Answer) -> None:
    assert [row.image_id for row in answer.rows] == sorted(NAMES)
    for row in answer.rows:
        east, south, heading, across = SHOTS[row.image_id]
        latitude, longitude = place(SHOTS[row.image_id])
        assert row.found
        assert row.heading_deg is not None
        assert WGS84.inv(longitude, latitude, row.longitude, row.latitude)[2] < 5
        north_of_it = place((east, south - 1, 0, 0))  # on the map's grid, which is turned
        grid_north = WGS84.inv(longitude, latitude, *north_of_it[::-1])[0]
        assert abs((row.heading_deg - heading - grid_north + 180) % 360 - 180) < 6
        assert row.ground_width_m == pytest.approx(across, rel=0.08)


def test_a_large_map_is_searched_coarsely_and_looked_at_again(
    answer: Answer, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvgl_ray.localization.plan.LARGE_PX", 1.0)
    asked = request(world)
    rows = localize_map(CONFIG, asked, tmp_path / "run").rows
    for row, other in zip(rows, answer.rows, strict=True):
        assert row.place is not None
        assert other.place is not None
        assert WGS84.inv(*row.place[::-1], *other.place[::-1])[2] < 5
    manifests = (tmp_path / "run/cells/photo").rglob("manifest.json")
    sides = [json.loads(path.read_text())["side_px"] for path in manifests]
    assert CONFIG.cells.coarse_px in sides
    assert max(sides) < CONFIG.cells.side_px


def test_tables_keep_their_contract(answer: Answer, world: Path) -> None:
    with (world / "run/locations.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = "image_id,latitude,longitude,heading_deg,ground_width_m,error_m,confidence,found"
    assert list(rows[0]) == columns.split(",")
    assert [row["image_id"] for row in rows] == sorted(NAMES)
    assert {row["found"] for row in rows} == {"true"}
    for row, known in zip(rows, answer.rows, strict=True):
        assert float(row["latitude"]) == pytest.approx(known.latitude, abs=1e-6)
    features = json.loads((world / "run/locations.geojson").read_text())["features"]
    shown = [(feature["geometry"]["type"], feature["properties"]["image_id"]) for feature in features]
    assert sorted(shown) == sorted((kind, name) for name in NAMES for kind in ("Point", "Polygon"))


def test_metrics_keep_their_contract(answer: Answer, world: Path) -> None:
    metrics = json.loads((world / "run/metrics.json").read_text())
    assert metrics == answer.metrics
    assert (metrics["queries"], metrics["found"], metrics["labels_read"]) == (len(NAMES), len(NAMES), False)
    assert metrics["median_m"] < 3
    assert metrics["within"] == {"5": 100.0, "10": 100.0, "25": 100.0, "50": 100.0, "100": 100.0}


def test_the_report_needs_no_network_and_names_each_photo(answer: Answer, world: Path) -> None:
    addresses: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            addresses.extend(value or "" for name, value in attrs if name in ("src", "href"))

    page = (world / "run/report.html").read_text()
    Links().feed(page)
    assert addresses
    assert not [address for address in addresses if address.startswith(("http", "//"))]
    assert all(name in page for name in NAMES)


def test_tensorboard_shows_the_rounds_the_places_and_photos_on_the_map(answer: Answer, world: Path) -> None:
    shown = EventAccumulator(str(world / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in shown.Scalars("flight/sure_share")] == [0, 1]  # frozen, adapted
    assert shown.Scalars("flight/found_share")[-1].value == 1.0
    for tag in ("flight/sure_heading_deg", "flight/sure_ground_m", "places/heading_deg", "places/error_m"):
        assert shown.Histograms(tag)[-1].histogram_value.num > 0, tag
    widths = shown.Histograms("places/ground_width_m")[-1].histogram_value
    assert widths.min == pytest.approx(min(row.ground_width_m or 0 for row in answer.rows))
    assert len(shown.Images("places/photo_map_both")) == 6


def test_georeferenced_photos_are_written_where_asked(answer: Answer, world: Path) -> None:
    assert len(list((world / "run/geotiff").glob("*.tif"))) == len(NAMES)
    assert len(list((world / "run/world").glob("*.wld"))) == len(NAMES)
    assert (world / "run/gcp_list.txt").read_text() == "EPSG:4326\n"  # no place is seen by three of them


def test_the_same_command_gives_the_same_rows_and_makes_no_cell(answer: Answer, world: Path) -> None:
    assert made_by(request(world), world / "run") == []
    assert localize_map(CONFIG, request(world), world / "run").rows == answer.rows


def test_cells_may_lie_elsewhere_and_a_new_photo_alone_is_new_work(world: Path, tmp_path: Path) -> None:
    few = write_photos(tmp_path / "few", NAMES[:2])
    asked = Request([str(world / "map.tif")], [str(few)], cache=str(tmp_path / "cells"))
    assert set(NAMES[:2]) < set(made_by(asked, tmp_path / "first"))
    write_photos(few, NAMES[2:3])
    assert made_by(asked, tmp_path / "second") == [NAMES[2]]
    assert not (tmp_path / "second/cells").exists()


@pytest.mark.parametrize("most", [1, 6])  # it ends among the photos, or among the blocks
def test_an_interrupted_run_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("cvgl_ray.localization.making.PART_BLOCKS", 2)  # the map has few blocks
    made = made_by(request(world, "two"), tmp_path / "run", most)
    rest = made_by(request(world, "two"), tmp_path / "run")
    assert len(made) == most
    assert rest
    assert not set(made) & set(rest)
    assert made_by(request(world, "two"), tmp_path / "run") == []


def test_a_flight_teaches_and_its_bundle_serves_the_next(answer: Answer, world: Path, tmp_path: Path) -> None:
    bundle = world / "run/bundle"
    attenuation = load_cell_bundle(bundle).adapter.attenuation
    assert not torch.equal(attenuation, torch.eye(len(attenuation)))
    asked = request(world, "two", bundle=bundle, cache=str(world / "run/cells"))
    config = load_map_config(bundle=bundle)  # the backbone and its cells come with it
    found = localize_map(config, asked, tmp_path / "run")
    assert [row.found for row in found.rows] == [True, True]
    next_one = load_cell_bundle(tmp_path / "run/bundle").adapter.attenuation
    assert torch.equal(next_one, attenuation)  # two photos are too few to learn from


def test_a_bundle_of_another_backbone_or_of_a_training_is_refused(
    answer: Answer, world: Path, tmp_path: Path
) -> None:
    bundle = world / "run/bundle"
    config = load_map_config(None, ("backbone.name=test_resnet",), bundle)
    with pytest.raises(InputError, match=r"--bundle was learned on other cells .* \(test_efficientnet\)$"):
        localize_map(config, request(world, bundle=bundle), tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()  # a better choice may follow
    (tmp_path / "config.json").write_text('{"format": 1, "config": {}}')
    with pytest.raises(InputError, match=r"was not made by `cvgl-ray localize --map`"):
        load_map_config(bundle=tmp_path)


def test_without_adaptation_the_model_stays_frozen(answer: Answer, world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"another configuration \(cells.rounds was 3"):
        localize_map(frozen(CONFIG), request(world), world / "run")
    asked = request(world, "two", cache=str(world / "run/cells"))
    assert all(row.found for row in localize_map(frozen(CONFIG), asked, tmp_path / "run").rows)
    attenuation = load_cell_bundle(tmp_path / "run/bundle").adapter.attenuation
    assert torch.equal(attenuation, torch.eye(len(attenuation)))


def test_what_photos_say_is_shown_and_used_where_asked(answer: Answer, world: Path, tmp_path: Path) -> None:
    """The second photo's GPS is wrong: with a prior it is searched there alone."""
    other = place(SHOTS[NAMES[5]])
    told = {name: PhotoInfo(latitude=other[0], longitude=other[1]) for name in NAMES[1:2]}
    photos = write_photos(tmp_path / "photos", NAMES[:2], infos=told)
    asked = Request([str(world / "map.tif")], [str(photos)], cache=str(world / "run/cells"))
    unused = localize_map(CONFIG, asked, tmp_path / "unused")
    assert any("1 of 2 photos tell a GPS position, which is not used" in note for note in unused.notes)
    assert all(row.found for row in unused.rows)
    used = localize_map(load_config(None, (*SMALL, "prior.position=50")), asked, tmp_path / "used")
    assert "within 50 m of the GPS of 1 of 2 photos" in (tmp_path / "used/report.html").read_text()
    first, second = used.rows
    assert first.found
    assert not second.found


def test_a_notebook_gets_rows(answer: Answer, world: Path) -> None:
    rows = cvgl_ray.localize(world / "map.tif", world / "two", config=CONFIG, cache=world / "run/cells")
    assert [(row["image_id"], row["found"]) for row in rows] == [(name, True) for name in NAMES[:2]]
    assert rows[0]["latitude"] == pytest.approx(answer.rows[0].latitude, abs=1e-4)
