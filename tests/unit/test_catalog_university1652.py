"""University-1652's layout: splits, places and what is refused."""

import shutil

import pytest

from cvgl_ray.catalog import university1652
from cvgl_ray.errors import InputError

FILES = (
    "train/drone/0001/image-01.jpeg",
    "train/drone/0001/image-02.JPG",
    "train/satellite/0001/0001.png",
    "train/street/0001/1.jpg",
    "test/query_drone/0002/image-01.jpeg",
    "test/gallery_drone/0002/image-01.jpeg",
    "test/gallery_drone/0003/image-01.jpeg",
    "test/query_satellite/0002/0002.jpg",
    "test/gallery_satellite/0002/0002.jpg",
    "test/gallery_satellite/0003/0003.jpg",
)


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_scan_both_sides(root):
    catalog = university1652.scan(str(root))
    assert sorted(catalog.image_ids) == sorted(name for name in FILES if "street" not in name)
    assert catalog.select(view="drone", split="train").image_ids == list(FILES[:2])
    assert catalog.select(view="satellite", split="train").image_ids == [FILES[2]]
    assert catalog.select(view="drone", split="query").image_ids == [FILES[4]]
    assert catalog.select(view="drone", split="gallery").image_ids == list(FILES[5:7])
    assert catalog.select(view="satellite", split="query").image_ids == [FILES[7]]
    assert catalog.select(view="satellite", split="gallery").image_ids == list(FILES[8:])
    assert university1652.scan(root.as_uri()).image_ids == catalog.image_ids


def test_labels_are_the_place_folders(root):
    catalog = university1652.scan(str(root))
    labels = university1652.labels(catalog)
    assert len(labels) == len(catalog)
    assert labels.place_ids([FILES[8], FILES[0], FILES[6]]).tolist() == ["0002", "0001", "0003"]
    assert university1652.place_of("train/drone/north/0001/a b.jpg") == "north/0001"


def test_one_side_or_one_direction_is_enough(root):
    shutil.rmtree(root / "test" / "query_satellite")
    shutil.rmtree(root / "test" / "gallery_drone")
    assert len(university1652.scan(str(root))) == 6
    shutil.rmtree(root / "train")
    assert set(university1652.scan(str(root)).rows["split"].to_pylist()) == {"query", "gallery"}


def test_neither_side_tells_the_layout(root):
    with pytest.raises(InputError, match=r"neither a train nor a test .*train/<view>/<place>/"):
        university1652.scan(str(root / "train"))
    with pytest.raises(InputError, match="neither a train nor a test"):
        university1652.scan(str(root / "missing"))


@pytest.mark.parametrize("folder", ["train/satellite", "test/query_drone", "test/gallery_satellite"])
def test_an_empty_view_is_refused_with_its_path(root, folder):
    shutil.rmtree(root / folder)
    (root / folder / "0001").mkdir(parents=True)
    with pytest.raises(InputError, match=f"empty view '(drone|satellite)': '{root}/{folder}'"):
        university1652.scan(str(root))


def test_missing_views_are_refused(root):
    shutil.copytree(root / "train" / "street", root / "train" / "google")
    with pytest.raises(InputError, match=r"empty view: .*has none of test/query_street, test/query_google"):
        university1652.scan(str(root), "street", "google")
    shutil.rmtree(root / "train" / "satellite")
    with pytest.raises(InputError, match=r"empty view 'satellite': there is no .*train/satellite"):
        university1652.scan(str(root))
    with pytest.raises(InputError, match="are both"):
        university1652.scan(str(root), "drone", "drone")


def test_an_image_without_a_place_is_refused(root):
    (root / "test" / "query_drone" / "stray.jpg").touch()
    with pytest.raises(InputError, match=r"'test/query_drone/stray\.jpg' lies in no place's folder"):
        university1652.scan(str(root))
    for image_id in ("stray.jpg", "elsewhere/drone/0001/a.jpg"):
        with pytest.raises(InputError, match="lies in no place's folder"):
            university1652.place_of(image_id)


def test_coordinates_are_read(root):
    (root / "coordinates.csv").write_text(f"image_id,latitude,longitude\n{FILES[8]},47.5,-8.25\n")
    gallery = university1652.scan(str(root)).select(view="satellite", split="gallery")
    assert gallery.rows["latitude"].to_pylist() == [47.5, None]
    assert gallery.rows["longitude"].to_pylist() == [-8.25, None]
