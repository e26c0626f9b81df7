"""DenseUAV's layout: University-1652's folders, and a list of the places' coordinates."""

import pytest
from trees import coordinates, splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError

TRAIN = ("train/drone/000001/H80.JPG", "train/satellite/000001/H80.tif", "train/satellite/000001/H80_old.tif")
TEST = (
    "test/query_drone/002256/H80.JPG",
    "test/gallery_satellite/002256/H80.tif",
    "test/gallery_satellite/000001/H80.tif",
)
LIST = (
    "train/satellite/000001/H80.tif E120.38756 N30.32413 94.606\n"
    "/home/someone/test/satellite/002256/H80.tif E120.5 N30.25 95\n"
)


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *TRAIN, *TEST)
    (tmp_path / "Dense_GPS_ALL.txt").write_text(LIST)
    return tmp_path


def test_satellite_images_have_their_places_coordinates(root):
    catalog = layouts.scan("denseuav", str(root), "drone", "satellite")
    assert splits(catalog) == dict.fromkeys(TRAIN, "train") | {
        TEST[0]: "query",
        TEST[1]: "gallery",
        TEST[2]: "gallery",
    }
    here, there = (30.32413, 120.38756), (30.25, 120.5)
    assert coordinates(catalog) == {TRAIN[1]: here, TRAIN[2]: here, TEST[1]: there, TEST[2]: here}


def test_labels_are_places_and_where_the_drone_was(root):
    catalog = layouts.scan("denseuav", str(root), "drone", "satellite")
    labels = layouts.load_labels("denseuav", str(root), catalog)
    assert labels.place_ids(TEST).tolist() == ["002256", "002256", "000001"]
    assert labels.relevance.pairs is None
    assert labels.relevance.positions.to_pylist() == [
        {"image_id": TRAIN[0], "latitude": 30.32413, "longitude": 120.38756},
        {"image_id": TEST[0], "latitude": 30.25, "longitude": 120.5},
    ]


def test_two_lists_or_none_do_as_well(root):
    (root / "Dense_GPS_ALL.txt").unlink()
    assert coordinates(layouts.scan("denseuav", str(root), "drone", "satellite")) == {}
    for name, line in zip(("train", "test"), LIST.splitlines(), strict=True):
        (root / f"Dense_GPS_{name}.txt").write_text(line)
    assert len(coordinates(layouts.scan("denseuav", str(root), "drone", "satellite"))) == 4


def test_a_list_of_another_form_is_refused(root):
    (root / "Dense_GPS_ALL.txt").write_text("train/satellite/000001/H80.tif 30.3 120.4\n")
    with pytest.raises(InputError, match=r"line 1 is .*E and the longitude, N and the latitude"):
        layouts.scan("denseuav", str(root), "drone", "satellite")
