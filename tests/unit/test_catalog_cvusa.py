"""CVUSA's layout: lists of pairs, both sides of which are asked and searched."""

import pytest
from trees import splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError

PAIRS = {n: (f"bingmap/19/000000{n}.jpg", f"streetview/panos/000000{n}.jpg") for n in (1, 2, 3)}


def line(n):
    return ",".join((*PAIRS[n], f"streetview/annotations/000000{n}.png")) + "\n"


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *(name for pair in PAIRS.values() for name in pair), "bingmap/19/0000009.jpg")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train-19zl.csv").write_text(line(2) + line(1))
    (tmp_path / "splits" / "val-19zl.csv").write_text(line(3))
    return tmp_path


def scan(root):
    return layouts.scan("cvusa", str(root), "street", "satellite")


def test_the_lists_say_which_images_train_and_which_are_tested(root):
    catalog = scan(root)
    assert splits(catalog) == {
        PAIRS[1][1]: "train",
        PAIRS[2][1]: "train",
        PAIRS[3][1]: "test",
        PAIRS[1][0]: "train",
        PAIRS[2][0]: "train",
        PAIRS[3][0]: "test",
    }
    assert catalog.select(view="street", split="query").image_ids == [PAIRS[3][1]]
    assert catalog.select(view="satellite", split="gallery").image_ids == [PAIRS[3][0]]
    assert catalog.select(view="satellite", split="query").image_ids == [PAIRS[3][0]]


def test_both_images_of_a_line_are_of_one_place(root):
    catalog = scan(root)
    labels = layouts.load_labels("cvusa", str(root), catalog)
    assert labels.place_ids([*PAIRS[3], *PAIRS[1]]).tolist() == ["0000003"] * 2 + ["0000001"] * 2


def test_missing_images_are_told_and_a_missing_list_is_refused(root, caplog):
    (root / PAIRS[2][1]).unlink()
    assert PAIRS[2][1] not in scan(root).image_ids
    assert "1 of the 3 images that the data set's list names are not in" in caplog.text
    (root / "splits" / "val-19zl.csv").write_text("bingmap/19/0000003.jpg\n")
    with pytest.raises(InputError, match=r"line 1 is .*give a tile's path, a comma, a panorama's"):
        scan(root)
    (root / "splits" / "val-19zl.csv").unlink()
    with pytest.raises(InputError, match=r"val-19zl\.csv' cannot be read"):
        scan(root)
