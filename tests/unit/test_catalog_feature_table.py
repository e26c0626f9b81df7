"""A feature table alone is a data set."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvgl_ray.catalog.feature_table import scan_table, table_labels
from cvgl_ray.errors import InputError


def written(path: Path, **columns: Any) -> str:
    table = {"image_id": ["a", "b", "c"], "view": ["drone", "satellite", "street"]} | columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), path)
    return str(path)


def test_ids_and_views_suffice(tmp_path):
    catalog = scan_table(written(tmp_path / "t.parquet"), "drone", "satellite")
    assert catalog.rows.to_pylist() == [
        {"image_id": name, "uri": "", "view": view, "split": "train", "latitude": None, "longitude": None}
        for name, view in (("a", "drone"), ("b", "satellite"))
    ]
    assert table_labels(str(tmp_path / "t.parquet"), catalog) is None


def test_splits_coordinates_and_labels_come_along(tmp_path):
    path = written(
        tmp_path / "t.parquet",
        split=["query", "gallery", "train"],
        latitude=[None, 47.0, 0.0],
        longitude=[None, 8, 0],
        place_id=["1", "1", ""],
    )
    catalog = scan_table(path, "drone", "satellite")
    assert catalog.rows["split"].to_pylist() == ["query", "gallery"]
    assert catalog.rows["latitude"].to_pylist() == [None, 47.0]
    labels = table_labels(path, catalog)
    assert labels is not None
    assert labels.place_ids(["b", "a"]).tolist() == ["1", "1"]
    assert len(labels) == 2


def test_several_files_are_one_data_set(tmp_path):
    (tmp_path / "view=drone").mkdir()
    written(tmp_path / "view=drone" / "1.parquet")
    written(tmp_path / "2.parquet", image_id=["d", "e", "f"])
    assert scan_table(str(tmp_path), "drone", "satellite").image_ids == ["d", "e", "a", "b"]
    written(tmp_path / "3.parquet")
    with pytest.raises(InputError, match="has image_id 'a' more than once"):
        scan_table(str(tmp_path), "drone", "satellite")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": None}, r"t\.parquet cannot be read with columns .* \(it has no column image_id\)"),
        ({"view": ["drone"] * 3}, "has no row of view 'satellite'; .*dataset.reference_view"),
        ({"split": ["validation", "train", "train"]}, "is of split 'validation': give it one of train"),
        ({"latitude": ["north", "0", "0"]}, "has a column latitude of string; it must hold degrees"),
        ({"latitude": [1.0, 1.0, 1.0]}, "latitude 1.0 and longitude None"),
        ({"image_id": ["a", None, "c"]}, "has a row without image_id; every row needs one"),
    ],
)
def test_a_faulty_table_is_one_sentence(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        scan_table(written(tmp_path / "t.parquet", **columns), "drone", "satellite")
    with pytest.raises(InputError, match="does not exist; give a Parquet file or a folder"):
        scan_table(str(tmp_path / "none"), "drone", "satellite")
