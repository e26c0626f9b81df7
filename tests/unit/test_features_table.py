"""Tables of features that somebody else wrote: what is read, joined and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.features.table import FeatureTable, check_same_dimension, read_table, select


def foreign(path: Path, **columns: Any) -> Path:
    """A table of two drone rows [1, 2] and [3, 4] with some columns replaced, or removed by None."""
    table = {"image_id": ["a", "b"], "view": ["drone"] * 2, "feature": [[1.0, 2.0], [3.0, 4.0]]} | columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), path)
    return path


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)]
)
def test_every_sort_of_float_list_is_read(tmp_path, kind):
    path = foreign(tmp_path / "t.parquet", feature=pa.array([[1, 2], [3, 4]], kind))
    table = read_table(str(path), "drone")
    rows = table.rows(table.image_ids)
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows, [[1, 2], [3, 4]])


def test_a_folder_of_tables_is_read_whole_one_view_at_a_time(tmp_path):
    (tmp_path / "view=drone").mkdir()  # read as a data set, this folder would add a column
    foreign(tmp_path / "view=drone" / "1.parquet")
    foreign(
        tmp_path / "2.parquet", image_id=["c", "d"], view=pa.array(["drone", "street"]).dictionary_encode()
    )
    (tmp_path / "notes.txt").write_text("not a table")
    assert sorted(read_table(tmp_path, "drone").image_ids) == ["a", "b", "c"]
    assert read_table(tmp_path, "street").image_ids == ["d"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"view": None}, r"cannot be read with columns .*view"),
        ({"feature": None}, r"cannot be read with columns .*feature"),
        ({"view": ["street", "street"]}, "has no row of view 'drone'; its column `view` must name it"),
        ({"view": [1, 2]}, "has no row of view 'drone'"),
        ({"image_id": ["a", "a"]}, "has image_id 'a' more than once; ids must be unique"),
        ({"image_id": ["a", None]}, "has a row without image_id"),
        ({"feature": [[1.0, 2.0], [3.0]]}, "has rows of lengths 1, 2; all must have one length above 0"),
        ({"feature": [[1.0, 2.0], None]}, "has rows of lengths 2, None"),
        ({"feature": pa.array([[], []], pa.list_(pa.float32()))}, "has rows of lengths 0"),
        (
            {"feature": [[1.0, 2.0], [3.0, float("nan")]]},
            r"1 of 2 rows with a value .* not finite .* image_id 'b'\); mend or",
        ),
        ({"feature": [[1.0, 2.0], [3.0, None]]}, "not finite in float16"),
        ({"feature": [[1.0, 2.0], [3.0, 1e6]]}, "not finite in float16"),
        ({"feature": [1.0, 2.0]}, "has a column feature of double; it must hold float lists"),
        ({"feature": [["x"], ["y"]]}, "has a column feature of list<.*string>; it must hold float lists"),
        ({"view": [["drone"], ["drone"]]}, "has a column view of list<.*>; it must hold strings"),
    ],
)
def test_a_bad_foreign_table_is_refused(tmp_path, columns, message):
    path = foreign(tmp_path / "theirs.parquet", **columns)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path, "drone")
    assert "theirs.parquet" in str(caught.value)


def test_foreign_tables_of_two_dimensions_are_refused(tmp_path):
    foreign(tmp_path / "1.parquet")
    foreign(tmp_path / "2.parquet", image_id=["c", "d"], feature=[[1.0], [2.0]])
    with pytest.raises(InputError, match=r"mixes dimensions \[1, 2\]"):
        read_table(tmp_path, "drone")


def test_a_missing_an_empty_and_a_broken_table_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; give a Parquet file or a folder"):
        read_table(tmp_path / "none.parquet", "drone")
    with pytest.raises(InputError, match="has no row of view 'drone'"):
        read_table(tmp_path, "drone")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InputError, match=r"text\.parquet cannot be read"):
        read_table(tmp_path, "drone")


def test_select_joins_by_id():
    table = FeatureTable(["a", "b", "c"], np.arange(3.0)[:, None])
    found = select(table, iter(["c", "a"]))
    assert found.image_ids == ["c", "a"]
    np.testing.assert_array_equal(found.features[:, 0], [2, 0])
    assert len(select(table, [])) == 0


def test_select_counts_and_names_missing_ids():
    with pytest.raises(
        InputError, match=r"lacks 2 of 3 images \(first: 'x'\); its image_id must be the path"
    ):
        select(FeatureTable(["a"], np.zeros((1, 3))), ["x", "a", "y"])


def test_views_of_two_dimensions_are_refused():
    check_same_dimension(FeatureTable(["a"], np.zeros((1, 3))), FeatureTable(["b"], np.zeros((1, 3))))
    with pytest.raises(InputError, match="query features have 3 dimensions and reference features 4"):
        check_same_dimension(FeatureTable(["a"], np.zeros((1, 3))), FeatureTable(["b"], np.zeros((1, 4))))
