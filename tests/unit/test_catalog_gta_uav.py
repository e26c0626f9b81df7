"""GTA-UAV's layout: lists of overlapping tiles, and the areas' protocols."""

import json

import pytest
from trees import splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError

TRAIN, TEST = "100_0001_0000000001.png", "200_0001_0000000002.png"
TILES = ("4_0_0.png", "5_1_1.png", "6_2_3.png", "6_9_9.png")


def entry(name, right, semi_positive):
    return {
        "drone_img_dir": "drone/images",
        "drone_img_name": name,
        "drone_loc_x_y": [1.0, 2.0],
        "sate_img_dir": "satellite",
        "pair_pos_sate_img_list": [TILES[n] for n in right],
        "pair_pos_semipos_sate_img_list": [TILES[n] for n in semi_positive],
    }


@pytest.fixture
def root(tmp_path):
    touch(tmp_path / "drone" / "images", TRAIN, TEST)
    touch(tmp_path / "satellite", *TILES)
    for area in ("same-area", "cross-area"):
        for name, listed in (("train", entry(TRAIN, [0], [0, 1])), ("test", entry(TEST, [2], [1, 2]))):
            (tmp_path / f"{area}-drone2sate-{name}.json").write_text(json.dumps([listed]))
    return tmp_path


def test_the_same_area_trains_on_the_whole_map(root):
    catalog = layouts.scan("gta-same", str(root), "drone", "satellite")
    assert splits(catalog) == {f"drone/images/{TRAIN}": "train", f"drone/images/{TEST}": "query"} | {
        f"satellite/{tile}": "map" for tile in TILES
    }


def test_the_other_area_is_searched_alone(root):
    catalog = layouts.scan("gta-cross", str(root), "drone", "satellite")
    trained = catalog.select(view="satellite", split="train").image_ids
    assert trained == [f"satellite/{tile}" for tile in TILES[:2]]
    assert len(catalog.select(view="satellite", split="gallery")) == 4


def test_labels_are_right_tiles_and_semi_positives(root):
    catalog = layouts.scan("gta-same", str(root), "drone", "satellite")
    pairs = layouts.load_labels("gta-same", str(root), catalog).relevance.pairs.to_pylist()
    assert [(row["query_id"][-5:-4], row["reference_id"], row["near"]) for row in pairs] == [
        ("1", f"satellite/{TILES[0]}", False),
        ("1", f"satellite/{TILES[1]}", True),
        ("2", f"satellite/{TILES[2]}", False),
        ("2", f"satellite/{TILES[1]}", True),
    ]


@pytest.mark.parametrize("content", ["{", '[{"drone_img_name": 1}]', "[1]"])
def test_a_list_of_another_form_is_refused(root, content):
    (root / "same-area-drone2sate-test.json").write_text(content)
    with pytest.raises(InputError, match="is not GTA-UAV's list"):
        layouts.scan("gta-same", str(root), "drone", "satellite")
