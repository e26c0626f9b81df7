"""SUES-200's layout: the published split, heights apart and together."""

import pytest
from trees import splits, touch

from cvgl_ray.catalog import layouts, sues200
from cvgl_ray.errors import InputError


def drone(place, height, number=0):
    return f"drone_view_512/{place}/{height}/{number}.jpg"


def satellite(place):
    return f"satellite-view/{place}/0.png"


PLACES = ("0007", "0008")  # of training and of testing


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *(satellite(place) for place in PLACES))
    touch(tmp_path, *(drone(place, height) for place in PLACES for height in sues200.HEIGHTS))
    return tmp_path


def test_120_of_200_places_train():
    assert len(sues200.TRAINING_PLACES) == 120
    assert min(sues200.TRAINING_PLACES) == 1
    assert max(sues200.TRAINING_PLACES) == 200


def test_places_of_training_are_distractors_in_both_galleries(root):
    catalog = layouts.scan("sues200-250", str(root), "drone", "satellite")
    assert splits(catalog) == {
        drone("0007", "250"): "map",
        drone("0008", "250"): "test",
        satellite("0007"): "map",
        satellite("0008"): "test",
    }
    assert catalog.select(split="train").image_ids == [drone("0007", "250"), satellite("0007")]
    assert catalog.select(split="query").image_ids == [drone("0008", "250"), satellite("0008")]
    assert len(catalog.select(split="gallery")) == 4


def test_the_heights_together(root):
    catalog = layouts.scan("sues200", str(root), "drone", "satellite")
    assert catalog.select(view="drone", split="query").image_ids == [
        drone("0008", height) for height in sues200.HEIGHTS
    ]
    assert len(catalog.select(view="satellite")) == 2
    labels = layouts.load_labels("sues200", str(root), catalog)
    assert labels.place_ids([drone("0008", "300"), satellite("0008")]).tolist() == ["0008"] * 2


def test_other_paths_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="lies in no height's folder"):
        layouts.scan("sues200", touch(root, "drone_view_512/0008/5.jpg"), "drone", "satellite")
    lonely = touch(tmp_path / "lonely", drone("0001", "150"), satellite("0001"))
    with pytest.raises(InputError, match="has no image of the heights 300"):
        layouts.scan("sues200-300", lonely, "drone", "satellite")
    with pytest.raises(InputError, match="lies in no place's folder"):
        sues200.place_of("satellite-view/0.png")
