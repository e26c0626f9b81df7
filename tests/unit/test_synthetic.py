"""The procedural world: its raster arithmetic, its plans, its folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.synthetic.canvas import (
    HALF_M,
    Building,
    Canvas,
    Ground,
    Roof,
    rectangle,
    stations,
)
from cvgl_ray.synthetic.fields import box_mean, fractal_noise, shadow_height, shifted
from cvgl_ray.synthetic.flight import render_place
from cvgl_ray.synthetic.street_views import write_streets
from cvgl_ray.synthetic.streets import clip, crooked_blocks
from cvgl_ray.synthetic.writer import write_world

SMALL = {"places": 1, "test_places": 1, "distractors": 1, "views": 2, "image_size": 24, "seed": 7}


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "small"
    write_world(root, **SMALL)
    return root


# Raster arithmetic


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (2, -1), (-3, 4), (9, 0)])
def test_shifted_reads_the_cell_at_the_offset(rows: int, cols: int) -> None:
    field = np.arange(30, dtype=np.float32).reshape(5, 6)
    expected = np.full_like(field, -1)
    for r in range(5):
        for c in range(6):
            if 0 <= r + rows < 5 and 0 <= c + cols < 6:
                expected[r, c] = field[r + rows, c + cols]
    np.testing.assert_array_equal(shifted(field, rows, cols, -1), expected)


def test_box_mean_is_the_mean_of_the_window() -> None:
    field = np.random.default_rng(0).standard_normal((7, 9)).astype(np.float32)
    padded = np.pad(field, 2, mode="edge")
    expected = [[padded[r : r + 5, c : c + 5].mean() for c in range(9)] for r in range(7)]
    np.testing.assert_allclose(box_mean(field, 2), expected, atol=1e-5)


def test_shadow_height_is_the_highest_ray_over_the_column() -> None:
    height = np.random.default_rng(0).uniform(0, 20, (40, 40)).astype(np.float32)
    expected = np.full_like(height, -1e6)
    for r in range(40):
        for c in range(40):
            for step in range(1, min(40 - r, c + 1)):
                expected[r, c] = max(expected[r, c], height[r + step, c - step] - 0.7 * step)
    found = shadow_height(height, (1.0, -1.0), 0.7)
    np.testing.assert_allclose(np.maximum(found, -100), np.maximum(expected, -100), atol=1e-3)


def test_fractal_noise_is_standardised_and_smooth() -> None:
    noise = fractal_noise(np.random.default_rng(0), 128, 64, 2)
    assert noise.shape == (128, 128)
    assert abs(float(noise.mean())) < 1e-3
    assert float(noise.std()) == pytest.approx(1.0, abs=1e-3)
    assert float(np.abs(np.diff(noise, axis=0)).max()) < 0.5


# Plans


def test_stations_lie_beside_the_line_at_equal_steps_inside_the_world() -> None:
    found = stations([(0.0, 0.0), (0.0, 2 * HALF_M)], 10.0, 3.0)
    np.testing.assert_allclose(found[:, 0], -3.0, atol=1e-9)
    np.testing.assert_allclose(np.diff(found[:, 1]), 10.0)
    assert found[:, 1].max() < HALF_M
    np.testing.assert_allclose(found[:, 2], np.pi / 2)


def test_clip_keeps_the_half_below_the_offset() -> None:
    square = rectangle((0, 0), 0.0, 1.0, 1.0)
    assert {(round(x, 6), round(y, 6)) for x, y in clip(square, (1.0, 0.0), 0.5)} == {
        (-1, -1), (0.5, -1), (0.5, 1), (-1, 1),
    }  # fmt: skip
    assert clip(square, (1.0, 0.0), -2.0) == []


def test_crooked_blocks_leave_a_lane_between_them() -> None:
    blocks = crooked_blocks(np.random.default_rng(0), 60.0, 8.0)
    assert len(blocks) > 40
    inner = [b for b in blocks if max(abs(x) + abs(y) for x, y in b) < HALF_M]
    for index, block in enumerate(inner):
        for other in inner[index + 1 :]:
            gap = min(np.hypot(ax - bx, ay - by) for ax, ay in block for bx, by in other)
            assert gap > 7.99


def test_canvas_knows_what_is_free() -> None:
    canvas = Canvas()
    lot = rectangle((10, 10), 0.3, 6, 4)
    assert canvas.is_free(lot, frozenset())
    assert not canvas.is_free(rectangle((HALF_M, 0), 0.0, 6, 4), frozenset())
    canvas.pave(lot, Ground.WATER)
    np.testing.assert_array_equal(
        canvas.materials(np.array([[10.0, 10], [-10, 10]])), [Ground.WATER, Ground.GRASS]
    )
    assert not canvas.is_free(lot, frozenset({Ground.WATER}))
    house = Building((10, 10), 0.3, 6, 4, 5.0, Roof.FLAT, (200, 0, 0), (0, 0, 0))
    canvas.erect(house, [lot])
    assert not canvas.is_free(lot, frozenset())
    canvas.clear(lot)
    assert canvas.is_free(lot, frozenset())


# Folders


def test_render_place_depends_on_its_arguments_alone() -> None:
    satellite, drones = render_place(3, 5, 2, 32)
    again, drones_again = render_place(3, 5, 2, 32)
    assert satellite.shape == (32, 32, 3)
    assert satellite.dtype == np.uint8
    assert len(drones) == 2
    np.testing.assert_array_equal(satellite, again)
    np.testing.assert_array_equal(drones, drones_again)
    other, _ = render_place(3, 6, 1, 32)
    assert np.abs(satellite.astype(int) - other).mean() > 8
    assert np.abs(drones[0].astype(int) - drones[1]).mean() > 8
    assert min(picture.std() for picture in (satellite, *drones)) > 10


def test_layout_has_train_and_test_places_apart(small_world: Path) -> None:
    tests = [f"test/{split}_{view}" for split in ("query", "gallery") for view in ("drone", "satellite")]
    folders = ["train/drone", "train/satellite", *tests]
    places = {folder: {path.name for path in (small_world / folder).iterdir()} for folder in folders}
    assert places["train/drone"] == places["train/satellite"]
    assert places["test/query_drone"] == places["test/query_satellite"]
    assert places["test/gallery_drone"] == places["test/gallery_satellite"] > places["test/query_drone"]
    assert not places["train/drone"] & places["test/gallery_drone"]
    assert [len(places[f]) for f in ("train/drone", "test/query_drone", "test/gallery_drone")] == [1, 1, 2]
    files = files_of(small_world)
    assert len(files) == 1 + 3 + 2 * 3 + 3  # marker, train, test twice, distractor
    for name, content in files.items():
        if name.startswith("test/query_"):
            assert files[name.replace("query_", "gallery_")] == content


def test_files_do_not_depend_on_processes_nor_on_the_number_of_places(
    small_world: Path, tmp_path: Path
) -> None:
    write_world(tmp_path / "larger", **{**SMALL, "places": 2, "distractors": 0}, processes=2)
    small, larger = files_of(small_world), files_of(tmp_path / "larger")
    shared = (small.keys() & larger.keys()) - {"world.json"}
    assert len(shared) == 3 + 2 * 3
    assert all(small[name] == larger[name] for name in shared)


def test_a_finished_world_is_left_alone_and_an_interrupted_one_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []

    def stub(seed: int, index: int, views: int, image_size: int) -> tuple[np.ndarray, list[np.ndarray]]:
        rendered.append(index)
        if len(rendered) == 3:
            raise KeyboardInterrupt
        picture = np.full((image_size, image_size, 3), index, np.uint8)
        return picture, [picture] * views

    monkeypatch.setattr("cvgl_ray.synthetic.writer.render_place", stub)
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path, **SMALL)
    assert json.loads((tmp_path / "world.json").read_text())["complete"] is False
    write_world(tmp_path, **SMALL)
    assert rendered == [0, 1, 2, 2]
    write_world(tmp_path, **SMALL)
    assert len(rendered) == 4


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"places": 0}, "places"),
        ({"views": 0}, "views"),
        ({"image_size": 4}, "image_size"),
        ({"processes": 0}, "processes"),
        ({"distractors": -1}, "distractors"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_number_out_of_range_is_named(tmp_path: Path, change: dict[str, int], word: str) -> None:
    with pytest.raises(InputError, match=f"^{word} is .* from"):
        write_world(tmp_path / "world", **{**SMALL, **change})
    assert not (tmp_path / "world").exists()


def test_a_folder_of_anything_else_is_refused_and_kept(small_world: Path, tmp_path: Path) -> None:
    before = files_of(small_world)
    with pytest.raises(InputError, match="holds a world of"):
        write_world(small_world, **{**SMALL, "seed": 8})
    assert files_of(small_world) == before
    (tmp_path / "photo.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds no world\.json"):
        write_world(tmp_path, **SMALL)
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        write_world(tmp_path, **SMALL)
    with pytest.raises(InputError, match=r"holds no world\.json"):
        write_world(tmp_path / "photo.txt", **SMALL)


# Streets


def test_streets_are_two_folders_and_labels_apart(tmp_path: Path) -> None:
    write_streets(tmp_path / "a", places=2, image_size=32, seed=5)
    write_streets(tmp_path / "b", places=1, image_size=32, seed=5, turned=True, field_of_view=90)
    rows = (tmp_path / "a" / "labels.csv").read_text().splitlines()[1:]
    tiles, strips = ({row.split(",")[0]: row.split(",")[1] for row in rows[n::2]} for n in (0, 1))
    assert list(tiles.values()) == list(strips.values())
    assert {Path(name).stem for name in tiles}.isdisjoint({Path(name).stem for name in strips})
    for number, name in enumerate(list(strips)[:1]):
        whole, narrow = (np.asarray(Image.open(tmp_path / folder / name), int) for folder in "ab")
        assert whole.shape == (16, 64, 3)
        assert narrow.shape == (16, 16, 3)
        heading = np.random.default_rng([5, number, 2]).uniform(0, 360)
        expected = np.roll(whole, -round(heading / 360 * 64), axis=1)[:, 24:40]
        assert np.abs(narrow - expected).mean() < 12  # but for the JPEGs' own noise
    with pytest.raises(InputError, match="field_of_view is 5, give a whole number from 10 to 360"):
        write_streets(tmp_path / "c", places=1, field_of_view=5)
