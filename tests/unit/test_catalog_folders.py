"""Plain folders: what is found, and the two optional files beside them."""

import pytest

from cvgl_ray.catalog import folders
from cvgl_ray.errors import InputError


@pytest.fixture
def root(tmp_path):
    for name in ("drone/b/1.jpg", "drone/a é.PNG", "satellite/1.jpeg", "street/1.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def coordinates(catalog):
    return list(zip(*(catalog.rows[name].to_pylist() for name in ("latitude", "longitude")), strict=True))


@pytest.mark.parametrize("as_uri", [False, True])
def test_scan_two_folders(root, as_uri):
    catalog = folders.scan(root.as_uri() if as_uri else str(root))
    assert catalog.image_ids == ["drone/a é.PNG", "drone/b/1.jpg", "satellite/1.jpeg"]
    assert catalog.rows["view"].to_pylist() == ["drone", "drone", "satellite"]
    assert set(catalog.rows["split"].to_pylist()) == {"train"}
    assert coordinates(catalog) == [(None, None)] * 3
    assert folders.scan(str(root), "street", "satellite").image_ids == ["street/1.jpg", "satellite/1.jpeg"]


def test_missing_and_empty_views(root):
    with pytest.raises(InputError, match=r"there is no folder .*plane"):
        folders.scan(str(root), "plane", "satellite")
    (root / "satellite" / "1.jpeg").rename(root / "satellite" / "1.tfw")
    with pytest.raises(
        InputError, match=r"empty view 'satellite': .*satellite' holds no image \(JPEG, .*; found: 1 \.tfw\)"
    ):
        folders.scan(str(root))


@pytest.mark.parametrize(
    ("query", "reference"), [("drone", "drone"), ("", "drone"), ("a/b", "drone"), ("drone", "..")]
)
def test_views_are_two_names_of_folders(query, reference):
    with pytest.raises(InputError, match=r"no name of a folder|are both 'drone'"):
        folders.check_views(query, reference)


def test_coordinates_are_joined_by_id(root):
    text = (
        "note,longitude,image_id,latitude\n,8.5,satellite/1.jpeg,47.4\n,0,unknown.jpg,0\n,,drone/b/1.jpg,\n"
    )
    (root / "coordinates.csv").write_text(text, encoding="utf-8-sig")
    assert coordinates(folders.scan(str(root))) == [(None, None), (None, None), (47.4, 8.5)]


def test_scan_images_of_one_folder(root):
    (root / "drone" / "coordinates.csv").write_text("image_id,latitude,longitude\na é.PNG,1,2\n")
    catalog = folders.scan_images(str(root / "drone"), "satellite", "gallery")
    assert catalog.image_ids == ["a é.PNG", "b/1.jpg"]
    assert catalog.rows["view"].to_pylist() == ["satellite"] * 2
    assert catalog.rows["split"].to_pylist() == ["gallery"] * 2
    assert coordinates(catalog) == [(1.0, 2.0), (None, None)]
    prefixed = folders.scan_images(str(root / "drone"), "satellite", "gallery", prefix="extra/0")
    assert prefixed.image_ids == ["extra/0/a é.PNG", "extra/0/b/1.jpg"]
    assert coordinates(prefixed) == coordinates(catalog)
    assert prefixed.uris == catalog.uris


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("image_id,latitude\nsatellite/1.jpeg,1\n", "header image_id,latitude,longitude"),
        ("image_id,latitude,longitude\nsatellite/1.jpeg,north,1\n", "invalid value 'north'"),
        ("image_id,latitude,longitude\nsatellite/1.jpeg,91,1\n", r"latitude 91\.0"),
        ("image_id,latitude,longitude\nsatellite/1.jpeg,1,\n", "longitude None"),
        ("image_id,latitude,longitude\na,1,1\na,2,2\n", "two rows for the image 'a'"),
        ("image_id,latitude,longitude\n1.jpeg,1,1\n", r"names none of the images: .* 'drone/a é.PNG'"),
    ],
)
def test_faulty_coordinates(root, text, message):
    (root / "coordinates.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        folders.scan(str(root))


def test_labels_of_a_file(root):
    catalog = folders.scan(str(root))
    assert folders.labels(str(root), catalog) is None
    text = "image_id,place_id\nsatellite/1.jpeg,0007\nunknown.jpg,1\ndrone/b/1.jpg,\n"
    (root / "labels.csv").write_text(text)
    labels = folders.labels(str(root), catalog)
    assert labels is not None
    assert len(labels) == 2
    assert labels.place_ids(["drone/b/1.jpg", "satellite/1.jpeg"]).tolist() == ["", "0007"]
    with pytest.raises(InputError, match=r"1 of 3 images have no label, 'drone/a é.PNG'"):
        labels.place_ids(catalog.image_ids)
    (root / "labels.csv").write_text("image,place\na,b\n")
    with pytest.raises(InputError, match="header image_id,place_id"):
        folders.labels(str(root), catalog)
