"""The registry: every layout by name, with distractors, and the one door to the labels."""

from typing import get_args

import pytest
from trees import touch

from cvgl_ray.catalog import layouts
from cvgl_ray.config.data import Layout
from cvgl_ray.errors import InputError


@pytest.fixture
def university(tmp_path):
    names = [f"{side}/1/a.jpg" for side in ("train/drone", "train/satellite", "test/query_drone")]
    return touch(tmp_path / "university", *names, "test/gallery_satellite/1/a.jpg")


@pytest.fixture
def distractors(tmp_path):
    # Both hold the same relative path, and one that looks like an id of the layout itself.
    return [touch(tmp_path / name, "1/a.jpg", "test/gallery_satellite/1/a.jpg") for name in ("one", "two")]


def test_distractors_join_the_gallery_alone(university, distractors):
    plain = layouts.scan("university1652", university, "drone", "satellite")
    catalog = layouts.scan("university1652", university, "drone", "satellite", distractors)
    assert catalog.image_ids[: len(plain)] == plain.image_ids
    assert len(catalog) == len(plain) + 4
    added = catalog.image_ids[len(plain) :]
    assert added[0] == ".distractors/0/1/a.jpg"
    assert added[3] == ".distractors/1/test/gallery_satellite/1/a.jpg"
    assert catalog.select(view="satellite", split="gallery").image_ids[1:] == added
    assert catalog.select(split="train").image_ids == plain.select(split="train").image_ids
    labels = layouts.load_labels("university1652", university, catalog)
    assert labels is not None
    assert labels.place_ids(catalog.image_ids).tolist() == ["1"] * len(plain) + [""] * 4


def test_folders_with_distractors(tmp_path, distractors):
    root = touch(tmp_path / "area", "drone/a.jpg", "satellite/a.jpg")
    catalog = layouts.scan("folders", root, "drone", "satellite", distractors[:1])
    assert catalog.select(split="train").image_ids == ["drone/a.jpg", "satellite/a.jpg"]
    assert len(catalog.select(view="satellite", split="gallery")) == 2
    assert layouts.load_labels("folders", root, catalog) is None
    (tmp_path / "area" / "labels.csv").write_text("image_id,place_id\ndrone/a.jpg,p\nsatellite/a.jpg,p\n")
    labels = layouts.load_labels("folders", root, catalog)
    assert labels is not None
    assert labels.place_ids(catalog.image_ids).tolist() == ["p", "p", "", ""]


def test_an_image_reached_twice_is_refused(university, distractors):
    with pytest.raises(InputError, match=r"one/1/a\.jpg' is reached twice"):
        layouts.scan(
            "university1652", university, "drone", "satellite", [distractors[0], distractors[0] + "/"]
        )
    with pytest.raises(InputError, match="is reached twice"):
        layouts.scan("university1652", university, "drone", "satellite", [f"{university}/test"])


def test_an_unknown_layout_lists_the_known(university):
    catalog = layouts.scan("university1652", university, "drone", "satellite")
    for call in (
        lambda: layouts.scan("vigor", university, "drone", "satellite"),
        lambda: layouts.load_labels("vigor", university, catalog),
    ):
        with pytest.raises(
            InputError, match="no layout 'vigor': give one of auto, university1652, folders, "
        ):
            call()


def test_a_layout_is_known_by_its_folders(university, tmp_path):
    assert layouts.scan("auto", university, "drone", "satellite") == layouts.scan(
        "university1652", university, "drone", "satellite"
    )
    for view in ("street", "satellite"):
        (tmp_path / view).mkdir()
        (tmp_path / view / "1.jpg").write_bytes(b"")
    catalog = layouts.scan("auto", str(tmp_path), "street", "satellite")
    assert catalog.image_ids == ["street/1.jpg", "satellite/1.jpg"]
    assert layouts.load_labels("auto", str(tmp_path), catalog) is None
    with pytest.raises(InputError, match="holds neither the folders drone and satellite nor train and test"):
        layouts.scan("auto", str(tmp_path), "drone", "satellite")


def test_the_configuration_knows_every_layout():
    assert set(get_args(Layout)) == {"auto", *layouts.LAYOUTS}
