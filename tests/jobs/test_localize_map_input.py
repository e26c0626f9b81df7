"""Bad input to `localize --map`: refused in one sentence, or named and left out while the rest is found."""

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from drawn import NAMES, SHOTS, SMALL, photo, place, write_map, write_photos, write_truth
from PIL import Image, ImageDraw

from cvgl_ray import cli
from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.localization.inputs import open_inputs
from cvgl_ray.localization.request import Request
from cvgl_ray.localization.run import localize_map
from cvgl_ray.maps.metadata import PhotoInfo

CONFIG = load_config(None, SMALL)
SETTINGS = [part for setting in SMALL for part in ("--set", setting)]
# A photo's cells fit, a part of the map's does not.
FILES_ARE_SMALL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: arguments -> (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cvgl-ray", "localize", *map(str, arguments), *SETTINGS])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is given well, and what is given badly."""
    folder = tmp_path_factory.mktemp("world")
    write_map(folder / "map.tif")
    photo(SHOTS[NAMES[0]]).save(folder / "bare.png")
    write_map(folder / "small.tif", width_m=300, height_m=80)
    latitude, longitude = place(SHOTS[NAMES[0]])
    infos = {NAMES[0]: PhotoInfo(latitude=latitude, longitude=longitude)}
    write_photos(folder / "photos", NAMES[:2], infos=infos)
    write_photos(folder / "bare", NAMES[1:2])
    write_truth(folder / "truth.csv")
    write_truth(folder / "exchanged.csv", columns="image_id,longitude,latitude")
    (folder / "other.csv").write_text("image_id,latitude,longitude\nother.jpg,52.5,13.4\n")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken/a.jpg").write_bytes(b"no picture")
    return folder


# Map and photos below the world's folder, options, what the sentence says.
REFUSED = {
    "no georeference": ("bare.png", "photos", "", "has no georeference: give a GeoTIFF .*, a folder of XYZ"),
    "an unknown CRS": ("map.tif", "photos", "--crs EPSG:99999", "EPSG:99999"),
    "a map smaller than a photo": ("small.tif", "photos", "", r"the map is \d+ m x 8\d m, smaller than a"),
    "no map": ("none.tif", "photos", "", "there is no map"),
    "no photos": ("map.tif", "empty", "", "empty' holds no photo"),
    "only broken photos": ("map.tif", "broken", "", r"none of the 1 photos can be used \(first: a.jpg"),
    "exchanged coordinates": ("map.tif", "photos", "--truth {}/exchanged.csv", "exchange the two columns"),
    "a truth of others": ("map.tif", "photos", "--truth {}/other.csv", "has a row for none of the 2 photos"),
    "no GPS as the truth": ("map.tif", "bare", "--truth exif", "none of the 1 photos has a GPS position"),
    "GPS as truth and as prior": (
        "map.tif",
        "photos",
        "--truth exif --set prior.position=100",
        "--truth exif takes the photos' GPS as the truth, and prior.position searches around it",
    ),
    "a prior that none tells": (
        "map.tif",
        "bare",
        "--set prior.heading=20",
        "none of the 1 photos has a yaw",
    ),
    "an unknown kind of output": ("map.tif", "photos", "--write kml", "--write kml is none of the kinds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    run: Run, world: Path, tmp_path: Path, name: str
) -> None:
    geomap, photos, more, sentence = REFUSED[name]
    options = more.format(world).split()
    code, out, err = run(
        "--map", world / geomap, "--query", world / photos, "--output", tmp_path / "run", *options
    )
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("cvgl-ray: ")
    assert re.search(sentence, last), last
    assert "Traceback" not in err
    assert (tmp_path / "run").exists() == (name == "only broken photos")  # which is known once they are read


def test_photos_of_elsewhere_are_not_found_and_the_user_is_asked(
    run: Run, world: Path, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", NAMES[:4], seed=7)
    code, out, _ = run("--map", world / "map.tif", "--query", photos, "--output", tmp_path / "run")
    assert code == 0
    assert out.startswith("0 of 4 photos found\n")
    with (tmp_path / "run/locations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["found"] for row in rows] == ["false"] * 4
    assert {row["latitude"] for row in rows} == {""}
    assert (
        "None of the photos was found: do they lie on this map?" in (tmp_path / "run/report.html").read_text()
    )


def test_what_is_broken_is_named_and_the_rest_is_found(world: Path, tmp_path: Path) -> None:
    """Two flights; a black photo, a screenshot, a file that is none; a damaged tile; half a truth."""
    first = datetime(2026, 5, 4, 10)
    times = {name: first + timedelta(minutes=30 * (number > 2)) for number, name in enumerate(NAMES[:5])}
    infos = {name: PhotoInfo(time=time) for name, time in times.items()}
    photos = write_photos(tmp_path / "photos", NAMES[:5], infos=infos)
    Image.new("RGB", (240, 180)).save(photos / "black.jpg")
    screenshot().save(photos / "screenshot.png")
    (photos / "cut.jpg").write_bytes((photos / NAMES[0]).read_bytes()[:600])
    geomap = tmp_path / "map.tif"
    content = bytearray((world / "map.tif").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    geomap.write_bytes(content)
    half = write_truth(tmp_path / "half.csv", NAMES[:2])
    answer = localize_map(CONFIG, Request([str(geomap)], [str(photos)], truth=str(half)), tmp_path / "run")
    rows = {row.image_id: row for row in answer.rows}
    found = {name for name, row in rows.items() if row.found}
    assert found == set(NAMES[:5])
    assert "one brightness" in rows["black.jpg"].reason
    assert "decoded" in rows["cut.jpg"].reason
    notes = "\n".join(answer.notes)
    assert "The photos are of 2 flights, by their times and numbers: 2026-05-04 10:00:00 (3)" in notes
    assert "3 photos have neither a time nor a number" in notes
    assert "Part of map.tif" in notes
    assert "have no row in the truth" in notes
    assert answer.metrics is not None
    assert answer.metrics["queries"] == 2


def screenshot() -> Image.Image:
    """A white window with lines of text and a grey bar."""
    picture = Image.new("RGB", (640, 400), (250, 250, 250))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 640, 40), fill=(90, 90, 100))
    for line in range(16):
        draw.text((20, 60 + 20 * line), "the quick brown fox jumps over the lazy dog " * 2, fill=(20, 20, 20))
    return picture


def test_a_disk_that_fills_is_said_and_the_next_run_goes_on(run: Run, world: Path, tmp_path: Path) -> None:
    options = ("--map", world / "map.tif", "--query", world / "photos", "--output", tmp_path / "run")
    # In a process of its own: the limit must not meet the logs of what else runs in this one.
    full = subprocess.run(
        [sys.executable, "-c", f"{FILES_ARE_SMALL}; from cvgl_ray.cli import main; main()", "localize"]
        + [str(option) for option in options]
        + SETTINGS,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (full.returncode, full.stdout) == (1, "")
    assert "File too large" in full.stderr.splitlines()[-1]
    assert "start the same command again to go on" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/cells").rglob("*.parquet")}
    assert kept
    assert not list((tmp_path / "run").rglob(".*.parquet*"))
    code, out, _ = run(*options)
    assert (code, out.splitlines()[0][:23]) == (0, "2 of 2 photos found, ex")
    assert (
        kept.items()
        <= {path: path.stat().st_mtime_ns for path in (tmp_path / "run/cells").rglob("*.parquet")}.items()
    )


def test_frames_of_a_video_are_photos_among_the_others(world: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        shown = photo(SHOTS[NAMES[1]])
        stream.width, stream.height, stream.pix_fmt = shown.width // 2 * 2, shown.height // 2 * 2, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode(None))
    asked = [str(world / "photos"), str(clip)]
    inputs = open_inputs([str(world / "map.tif")], asked, CONFIG.prior, frames=tmp_path / "run/frames")
    frames = [f"clip.mp4_t{second:06d}000ms.jpg" for second in (0, 2, 4)]
    assert [photo.image_id for photo in inputs.photos] == sorted([*frames, *NAMES[:2]])
    assert tuple(frames) in [flight.image_ids for flight in inputs.flights]
    with pytest.raises(InputError, match=r"is a video, .* give a local --output"):
        open_inputs([str(world / "map.tif")], asked, CONFIG.prior)
