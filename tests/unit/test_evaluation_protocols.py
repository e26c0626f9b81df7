import numpy as np
import pytest
import torch

from cvgl_ray.catalog.relevance import Relevance, pair_table, position_table
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Dataset
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.embedded import queries_trained_on
from cvgl_ray.evaluation.metrics import geodesic_error_m
from cvgl_ray.evaluation.protocols import Direction, Retrieved, directions, evaluate_direction, examples
from cvgl_ray.features.table import FeatureTable
from cvgl_ray.features.views import row_digests


def image(image_id, view, split, latitude=None, longitude=None):
    row = {"image_id": image_id, "uri": f"/root/{image_id}", "view": view, "split": split}
    return {**row, "latitude": latitude, "longitude": longitude}


UNIVERSITY = [
    image("train/drone/1/a.jpg", "drone", "train"),
    image("train/satellite/1/a.jpg", "satellite", "train"),
    image("test/query_drone/2/a.jpg", "drone", "query"),
    image("test/gallery_satellite/2/a.jpg", "satellite", "gallery"),
    image("test/gallery_satellite/3/a.jpg", "satellite", "gallery"),
    image("test/query_satellite/2/a.jpg", "satellite", "query"),
    image("test/gallery_drone/2/a.jpg", "drone", "gallery"),
    image("more/far.jpg", "satellite", "gallery"),
]


def named(found):
    return {d.name: (d.queries.image_ids, d.gallery.image_ids) for d in found}


def test_university1652_searches_its_test_split_both_ways_with_distractors():
    found = directions(Catalog.from_rows(UNIVERSITY), "drone", "satellite")
    assert [d.name for d in found] == ["drone->satellite", "satellite->drone"]
    assert named(found) == {
        "drone->satellite": (
            ["test/query_drone/2/a.jpg"],
            ["test/gallery_satellite/2/a.jpg", "test/gallery_satellite/3/a.jpg", "more/far.jpg"],
        ),
        "satellite->drone": (["test/query_satellite/2/a.jpg"], ["test/gallery_drone/2/a.jpg"]),
    }


def test_a_direction_without_queries_is_left_out():
    rows = [row for row in UNIVERSITY if "query_satellite" not in row["image_id"]]
    assert [d.name for d in directions(Catalog.from_rows(rows), "drone", "satellite")] == ["drone->satellite"]


def test_without_a_test_split_the_training_images_are_searched_and_distractors_join():
    rows = [row for row in UNIVERSITY if row["split"] == "train" or row["image_id"] == "more/far.jpg"]
    assert named(directions(Catalog.from_rows(rows), "drone", "satellite")) == {
        "drone->satellite": (["train/drone/1/a.jpg"], ["train/satellite/1/a.jpg", "more/far.jpg"]),
        "satellite->drone": (["train/satellite/1/a.jpg"], ["train/drone/1/a.jpg"]),
    }


def test_a_published_pair_is_asked_and_searched_and_a_map_is_searched_in_training_too():
    rows = [
        image("s/1", "street", "train"),
        image("s/2", "street", "test"),
        image("t/1", "tile", "map"),
        image("t/2", "tile", "test"),
    ]
    catalog = Catalog.from_rows(rows)
    assert named(directions(catalog, "street", "tile")) == {
        "street->tile": (["s/2"], ["t/1", "t/2"]),
        "tile->street": (["t/2"], ["s/2"]),
    }
    assert catalog.select(split="train").image_ids == ["s/1", "t/1"]


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(InputError, match="'street' nor 'aerial'"):
        directions(Catalog.from_rows(UNIVERSITY), "street", "aerial")


def two_by_three(**third):
    """Two queries, three references; reference 2 is a distractor that the second query takes for its own."""
    queries = Catalog.from_rows(
        [image("q0", "drone", "query", 48.0, 7.0), image("q1", "drone", "query", 48.0, 7.1)]
    )
    gallery = [image("g0", "satellite", "gallery", 48.0, 7.0), image("g1", "satellite", "gallery", 48.0, 7.1)]
    gallery.append(image("g2", "satellite", "gallery", **third))
    query, references = torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0.9, 0]])
    return Direction("drone->satellite", queries, Catalog.from_rows(gallery)), query, references


LABELS = {"q0": "a", "q1": "b", "g0": "a", "g1": "b", "g2": ""}


def test_evaluate_direction_joins_places_by_id():
    direction, query, gallery = two_by_three()
    metrics = evaluate_direction(direction, query, gallery, Labels.from_places(LABELS))
    expected = {"R@1": 50, "R@1%": 50, "AP": 62.5, "AP_standard": 75}
    expected |= {"queries": 2, "gallery": 3, "queries_without_relevant": 0}
    assert {name: metrics[name] for name in expected} == expected
    assert set(metrics) - set(expected) == {"R@1_low", "R@1_high", "R@1%_low", "R@1%_high"}
    assert evaluate_direction(direction, query, gallery, Labels.from_places(LABELS), ks=[2])["R@2"] == 100


def test_evaluate_direction_gives_metres_where_all_coordinates_are_known():
    direction, query, gallery = two_by_three(latitude=48.0, longitude=7.3)
    metrics = evaluate_direction(direction, query, gallery, Labels.from_places(LABELS))
    miss = geodesic_error_m(48.0, 7.3, 48.0, 7.1)
    assert metrics["median_error_m"] == pytest.approx(miss / 2)  # the median of 0 and the miss
    assert metrics["Dis@1_m"] == pytest.approx(miss / 2)
    assert metrics["L@5m"] == metrics["L@100m"] == 50
    assert metrics["SDM@1"] == pytest.approx(50)


def test_pairs_say_what_is_right_and_true_positions_go_before_the_catalogs():
    direction, query, gallery = two_by_three(latitude=48.0, longitude=7.3)
    pairs = pair_table([("q0", "g0", False), ("q1", "g1", False), ("q1", "g2", True), ("x", "g0", False)])
    labels = Labels.from_places({}, Relevance(pairs, position_table([("q1", 48.0, 7.3)])))
    metrics = evaluate_direction(direction, query, gallery, labels)
    assert metrics["R@1"] == 50  # the second query finds its semi-positive first
    assert metrics["hit_rate"] == 100
    assert metrics["hit_rate_low"] == metrics["hit_rate_high"] == 100
    assert metrics["median_error_m"] == 0
    assert [found.right for found in examples(direction, query, gallery, labels, count=2, depth=1)] == [
        [True],
        [False],
    ]
    back = Direction("satellite->drone", direction.gallery, direction.queries)
    metrics = evaluate_direction(back, gallery, query, labels)
    assert metrics["R@1"] == 100  # the same pairs, asked from the other side
    assert metrics["queries_without_relevant"] == 1


def test_evaluate_direction_refuses_missing_labels():
    direction, query, gallery = two_by_three()
    partial = Labels.from_places({"q0": "a", "q1": "b", "g0": "a"})
    with pytest.raises(InputError, match="2 of 3 images have no label"):
        evaluate_direction(direction, query, gallery, partial)


def test_examples_are_evenly_spaced_queries_with_their_best_references():
    rows = [image(f"{view}/{n}.jpg", view, "train") for view in ("drone", "satellite") for n in range(4)]
    direction = directions(Catalog.from_rows(rows), "drone", "satellite")[0]
    labels = Labels.from_places({row["image_id"]: row["image_id"].split("/")[1] for row in rows})
    swapped = torch.eye(4)[[1, 0, 2, 3]]  # the first two satellite images are each other's
    first, last = examples(direction, torch.eye(4), swapped, labels, count=2, depth=1)
    assert first == Retrieved("/root/drone/0.jpg", ["/root/satellite/1.jpg"], [False])
    assert last == Retrieved("/root/drone/3.jpg", ["/root/satellite/3.jpg"], [True])


def test_it_is_known_whether_an_image_asked_about_was_trained_on():
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    tables = {
        "drone": FeatureTable(["test/query_drone/2/a.jpg", "test/gallery_drone/2/a.jpg"], rows[:2]),
        "satellite": FeatureTable(["test/query_satellite/2/a.jpg"], rows[2:3]),
    }
    found = directions(Catalog.from_rows(UNIVERSITY), "drone", "satellite")
    dataset, other = Dataset(), row_digests(rows[3:])
    for trained_on, expected in (
        ((other, other), False),
        ((row_digests(rows[:1]), other), True),
        ((row_digests(rows[1:2]), other), False),  # a gallery's image may be known
        ((other, row_digests(rows[2:3])), True),
    ):
        assert queries_trained_on(found, tables, trained_on, dataset) == expected
