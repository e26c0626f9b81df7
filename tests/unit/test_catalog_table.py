"""The catalog and the labels: what they keep, join and refuse."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvgl_ray.catalog.table import SCHEMA, Catalog, Labels, concat, repeated
from cvgl_ray.errors import InputError


def row(image_id: str, **fields: Any) -> dict[str, Any]:
    return {"image_id": image_id, "uri": f"/data/{image_id}", "view": "drone", "split": "train", **fields}


def test_catalog_survives_parquet(tmp_path):
    folder = tmp_path / "view=drone"  # read as a data set, this folder would add a column
    folder.mkdir()
    catalog = Catalog.from_rows([row("b é.jpg", latitude=-90.0, longitude=180.0), row("a.jpg")])
    catalog.write(str(folder / "catalog.parquet"))
    again = Catalog.read(str(folder / "catalog.parquet"))
    assert again == catalog
    assert again.image_ids == ["b é.jpg", "a.jpg"]
    assert again.uris == ["/data/b é.jpg", "/data/a.jpg"]
    assert again.rows["latitude"].to_pylist() == [-90.0, None]


def test_select_and_concat_keep_the_order():
    drones = Catalog.from_rows([row("3"), row("1", split="query"), row("2")])
    satellites = Catalog.from_rows([row("0", view="satellite")])
    both = concat([drones, satellites])
    assert len(both) == 4
    assert both.select().image_ids == ["3", "1", "2", "0"]
    assert both.select(view="drone", split="train").image_ids == ["3", "2"]
    assert both.select(split="train").image_ids == ["3", "2", "0"]
    assert len(both.select(view="street")) == 0
    assert len(concat([])) == 0


def test_an_id_of_two_images_is_refused_with_both_uris():
    one, other = Catalog.from_rows([row("a.jpg")]), Catalog.from_rows([row("a.jpg", uri="s3://b/a.jpg")])
    with pytest.raises(InputError, match=r"'a\.jpg' names both '/data/a\.jpg' and 's3://b/a\.jpg'"):
        concat([one, other])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(""), "no image_id"),
        (row("a", uri=None), "no uri"),
        (row("a", view=""), "no view"),
        (row("a", split="val"), "'val': give it one of train, query, gallery, test, map"),
        (row("a/../b"), "is not an image id"),
        (row("/a"), "is not an image id"),
        (row("a", latitude=90.1, longitude=0.0), r"latitude 90\.1"),
        (row("a", latitude=0.0, longitude=-181.0), r"longitude -181\.0"),
        (row("a", latitude=float("nan"), longitude=0.0), "latitude nan"),
        (row("a", latitude=1.0), "longitude None"),
    ],
)
def test_bad_rows_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        Catalog.from_rows([row("good"), bad])


def test_names_with_two_dots_are_no_way_out():
    assert len(Catalog.from_rows([row("a..b/..c/d...jpg")])) == 1


def test_reading_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Catalog.read(str(tmp_path / "missing.parquet"))
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(InputError, match="cannot be read"):
        Catalog.read(str(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="with the columns image_id, place_id"):
        Labels.read(str(tmp_path / "other.parquet"))


def test_reading_accepts_other_string_types_and_further_columns(tmp_path):
    large = pa.array(["0001"], pa.large_string())
    pq.write_table(
        pa.table({"extra": [1], "place_id": large, "image_id": large}), tmp_path / "labels.parquet"
    )
    assert list(Labels.read(str(tmp_path / "labels.parquet")).place_ids(["0001"])) == ["0001"]


def test_labels_are_joined_by_id(tmp_path):
    labels = Labels.from_places({"a": "0001", "b": "0002", "c": ""})
    labels.write(str(tmp_path / "labels.parquet"))
    again = Labels.read(str(tmp_path / "labels.parquet"))
    assert again == labels
    assert len(again) == 3
    places = again.place_ids(["c", "a", "b", "a"])
    assert isinstance(places, np.ndarray)
    assert places.tolist() == ["", "0001", "0002", "0001"]
    assert again.place_ids([]).shape == (0,)


def test_faulty_labels_are_refused():
    with pytest.raises(InputError, match=r"2 of 3 images have no label, 'x' the first"):
        Labels.from_places({"a": "1"}).place_ids(["a", "x", "y"])
    rows = Labels.from_places({"a": "1"}).rows
    with pytest.raises(InputError, match="'a' has two labels"):
        Labels(pa.concat_tables([rows, rows]))
    with pytest.raises(InputError, match="null"):
        Labels.from_places({"a": None})  # type: ignore[dict-item]


def test_repeated_finds_the_first():
    assert repeated(pa.chunked_array([["a", "b"], ["c"]])) is None
    assert repeated(pa.chunked_array([["a", "b"], ["c", "b", "c"]])) == "b"
    assert repeated(SCHEMA.empty_table()["image_id"]) is None
