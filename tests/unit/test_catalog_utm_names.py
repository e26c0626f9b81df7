"""Names with UTM coordinates: who is right by metres, and where references lie."""

import pytest
import torch
from pyproj import Transformer
from trees import coordinates, splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.protocols import directions, judge_direction


def named(east, north, rest="@@@@@@"):
    return f"@{east:010.2f}@{north:010.2f}{rest}@.jpg"


def scan(root):
    catalog = layouts.scan("utm", str(root), "street", "satellite")
    return catalog, layouts.load_labels("utm", str(root), catalog)


def right(labels):
    return [
        (row["query_id"].rsplit("/")[-1], row["reference_id"]) for row in labels.relevance.pairs.to_pylist()
    ]


def test_references_within_25_metres_are_right(tmp_path):
    query = named(500_000, 5_300_000)
    database = [named(500_000 + d, 5_300_000) for d in (15, 25, 25.01, 400)]
    for part in ("train", "test"):
        touch(tmp_path / "images" / part, f"queries/{query}", *(f"database/{name}" for name in database))
    catalog, labels = scan(tmp_path)
    assert splits(catalog)[f"images/test/queries/{query}"] == "query"
    assert splits(catalog)[f"images/test/database/{database[0]}"] == "gallery"
    assert len(catalog.select(split="train")) == 5
    assert right(labels) == [
        (query, f"images/{part}/database/{name}") for part in ("test", "train") for name in database[:2]
    ]
    assert coordinates(catalog) == {}  # no zone, no place on the globe


def test_a_data_set_for_testing_alone_is_adapted_to_and_localised_in(tmp_path):
    touch(tmp_path / "test", f"queries/{named(1, 2)}", f"database/a/{named(1, 3)}")
    catalog, labels = scan(tmp_path)
    assert set(splits(catalog).values()) == {"train"}
    assert len(right(labels)) == 1


def test_zone_or_degrees_place_a_reference(tmp_path):
    east, north = Transformer.from_crs("EPSG:4326", "EPSG:32756", always_xy=True).transform(151.2, -33.9)
    south = named(east, north, "@56@H@@@id@@@")
    degrees = named(east, north, "@56@H@-033.90000@0151.20000@id@@@")
    touch(tmp_path / "test", f"queries/{degrees}", f"database/{south}", f"database/{degrees}")
    catalog, labels = scan(tmp_path)
    found = coordinates(catalog)
    assert found[f"test/database/{degrees}"] == (-33.9, 151.2)
    assert found[f"test/database/{south}"] == pytest.approx((-33.9, 151.2), abs=1e-6)
    assert len(found) == 2  # the query's is a label
    assert labels.relevance.positions.to_pylist()[0]["latitude"] == -33.9


def test_other_names_are_refused(tmp_path):
    touch(tmp_path / "test", "queries/1.jpg", f"database/{named(1, 2)}")
    with pytest.raises(InputError, match=r"the name of 'test/queries/1\.jpg' has no coordinates"):
        scan(tmp_path)
    with pytest.raises(InputError, match="has no folder train, val or test"):
        scan(tmp_path / "test" / "queries")


def test_views_of_one_spot_count_once_where_the_layout_says_so(tmp_path):
    """Three views of one wrong spot come first; the right one is second among spots, fourth among images."""
    views = [named(500_000, 5_300_000, f"@@@@@{heading}@") for heading in (0, 120, 240)]
    right_one = named(500_400, 5_300_000)
    touch(tmp_path / "test", f"queries/{named(500_405, 5_300_000)}", f"database/{right_one}")
    touch(tmp_path / "test", *(f"database/{name}" for name in views))
    catalog, plain = scan(tmp_path)
    spotted = layouts.load_labels("utm-spots", str(tmp_path), catalog)
    direction = directions(catalog, "street", "satellite")[0]
    scores = [0.1 if name.endswith(right_one) else 0.9 for name in direction.gallery.image_ids]
    gallery = torch.tensor(scores)[:, None]
    for labels, rank, counted in ((plain, 4, 4), (spotted, 2, 2)):
        figures, results = judge_direction(direction, torch.ones(1, 1), gallery, labels)
        assert results.first_rank.tolist() == [rank - 1]
        assert figures["gallery"] == counted
