"""The feature store and tables that somebody else wrote: what they keep, join and refuse."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.features.store import (
    FeatureStore,
    RowStore,
    fingerprint,
)
from cvgl_ray.features.table import FeatureTable, check_same_dimension, read_table, select
from cvgl_ray.storage.files import file_digest, write_atomically, write_json

RECIPE = {"backbone": {"name": "x"}, "weights": "00"}


def rows(count: int, dimension: int = 3, start: int = 0) -> np.ndarray:
    """Rows that name themselves: row i is [i, i, ...]."""
    return np.repeat(np.arange(start, start + count, dtype=np.float32)[:, None], dimension, axis=1)


def opened(root: Path, recipe: dict[str, Any] = RECIPE, view: str = "drone") -> FeatureStore:
    store = FeatureStore(root, view, recipe)
    store.open()
    return store


def foreign(path: Path, **columns: Any) -> Path:
    """A table of two drone rows [1, 2] and [3, 4] with some columns replaced, or removed by None."""
    table = {"image_id": ["a", "b"], "view": ["drone"] * 2, "feature": [[1.0, 2.0], [3.0, 4.0]]} | columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), path)
    return path


def test_rows_come_back_by_image_in_the_order_asked(tmp_path):
    store = opened(tmp_path)
    store.append(["d0", "d1"], ["0.jpg", "1.jpg"], rows(2))
    store.append(["d2"], ["2.jpg"], rows(1, start=2))
    table = store.load(["2.jpg", "0.jpg", "rejected.jpg"], ["d2", "d0", "!"])
    assert table.image_ids == ["2.jpg", "0.jpg"]
    assert table.features.dtype == np.float16
    np.testing.assert_array_equal(table.features[:, 0], [2, 0])
    assert (len(table), table.dimension) == (2, 3)


def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path):
    opened(tmp_path).append(["d0", "d1"], ["0", "1"], rows(2))
    again = opened(tmp_path)
    assert again.digests() == {"d0", "d1"}
    again.append(["d2"], ["2"], rows(1, start=2))
    np.testing.assert_array_equal(again.load(["0", "1", "2"], ["d0", "d1", "d2"]).features[:, 0], [0, 1, 2])


def test_a_part_written_twice_is_stored_once(tmp_path):
    store = opened(tmp_path)
    for _ in range(2):
        store.append(["d0", "d1"], ["0", "1"], rows(2))
    assert len(list(store.folder.glob("*.parquet"))) == 1


def test_parts_that_overlap_keep_every_image_its_own_row(tmp_path):
    """Two runs that share a cache may both have extracted an image."""
    store = opened(tmp_path)
    digests = np.array([f"d{i}" for i in range(6)])
    for part in ([0, 1, 2], [1, 2, 3], [4, 0, 5]):
        store.append(digests[part].tolist(), digests[part].tolist(), rows(6)[part])
    found = store.load(digests.tolist(), digests.tolist())
    np.testing.assert_array_equal(found.features[:, 0], np.arange(6))


def test_one_picture_under_two_names_is_one_row(tmp_path):
    digest = file_digest(b"the same bytes")
    assert digest == file_digest(b"the same bytes") != file_digest(b"other bytes")
    store = opened(tmp_path)
    store.append([digest], ["a.jpg"], rows(1, start=7))
    table = store.load(["a.jpg", "copy.jpg"], [digest, digest])
    np.testing.assert_array_equal(table.features[:, 0], [7, 7])


@pytest.mark.parametrize(
    "other", [{"weights": "01"}, {"backbone": {"name": "y"}}, {"pretransform": {"flip": True}}]
)
def test_another_recipe_never_meets_old_rows(tmp_path, other):
    opened(tmp_path).append(["d0"], ["0"], rows(1))
    changed = opened(tmp_path, RECIPE | other)
    assert changed.digests() == set()
    with pytest.raises(InputError, match=r"holds no features; run `cvgl-ray extract` first"):
        changed.load(["0"], ["d0"])
    assert opened(tmp_path).digests() == {"d0"}


def test_views_are_kept_apart(tmp_path):
    opened(tmp_path, view="drone").append(["d0"], ["0"], rows(1))
    assert opened(tmp_path, view="satellite").digests() == set()


def test_a_fingerprint_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16


def test_the_manifest_says_what_produced_the_rows(tmp_path):
    store = opened(tmp_path)
    assert json.loads((store.folder / "manifest.json").read_text()) == {"view": "drone", **RECIPE}
    assert store.folder == tmp_path / "drone" / fingerprint(RECIPE)


def test_a_half_written_part_is_ignored(tmp_path):
    store = opened(tmp_path)
    store.append(["d0"], ["0"], rows(1))
    [part] = store.folder.glob("part-*.parquet")
    (store.folder / f".{part.name}.123").write_bytes(part.read_bytes()[:20])
    assert store.digests() == {"d0"}
    assert len(store.load(["0"], ["d0"])) == 1


def test_a_truncated_part_is_named(tmp_path):
    store = opened(tmp_path)
    store.append(["d0"], ["0"], rows(1))
    [part] = store.folder.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    for read in (store.digests, lambda: store.load(["0"], ["d0"])):
        with pytest.raises(InputError, match=rf"{part.name} is damaged: .*; remove it, and the next run"):
            read()


def wide(store: FeatureStore, count: int = 40, dimension: int = 65_536) -> np.ndarray:
    """Rows of 128 KiB, so that a part has several row groups: [count, dimension] float16, appended."""
    made = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float16)
    digests = [f"d{row}" for row in range(count)]
    store.append(digests, [f"{row}.jpg" for row in range(count)], made)
    return made


def test_a_few_rows_are_read_without_the_rest(tmp_path, monkeypatch):
    store = opened(tmp_path)
    made = wide(store)
    [part] = store.folder.glob("part-*.parquet")
    assert pq.ParquetFile(part).num_row_groups == 5
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the whole part was read"))
    again = opened(tmp_path)
    for asked in ([7], [39, 0], [17, 16, 23, 17]):
        found = again.load([f"{row}.jpg" for row in asked], [f"d{row}" for row in asked])
        np.testing.assert_array_equal(found.features, made[asked])


def test_all_rows_are_read_whole_and_checked(tmp_path):
    store = opened(tmp_path)
    made, everything = wide(store), [f"d{row}" for row in range(40)]
    np.testing.assert_array_equal(opened(tmp_path).load(everything, everything).features, made)


def test_a_flipped_bit_among_many_row_groups_is_caught_or_means_nothing(tmp_path):
    store = opened(tmp_path)
    made = wide(store, 9, 65_536)
    [part] = store.folder.glob("part-*.parquet")
    content, rng = part.read_bytes(), np.random.default_rng(0)
    caught = 0
    tail = len(content) - 3000  # the footer and what lies before it; then anywhere
    for position in [*rng.integers(tail, len(content), 40), *rng.integers(0, len(content), 20)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        part.write_bytes(damaged)
        try:
            found = opened(tmp_path).load(["5"], ["d5"]).features
        except InputError:
            caught += 1
        else:
            np.testing.assert_array_equal(found, made[[5]])
        with pytest.raises(InputError):
            opened(tmp_path).load([f"{row}" for row in range(9)], [f"d{row}" for row in range(9)])
    assert caught > 10


def test_parts_of_before_are_read(tmp_path):
    """One row group, no checksums of pages, dictionaries, statistics: as this store once wrote."""
    store, made = opened(tmp_path), rows(3)
    flat = pa.array(made.astype(np.float16).reshape(-1))
    columns = {
        "digest": ["d0", "d1", "d2"],
        "image_id": ["0", "1", "2"],
        "view": ["drone"] * 3,
        "feature": pa.FixedSizeListArray.from_arrays(flat, 3),
    }
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), stream)
    content = stream.getvalue()
    (store.folder / f"part-{file_digest(content)}.parquet").write_bytes(content)
    assert store.digests() == {"d0", "d1", "d2"}
    np.testing.assert_array_equal(store.load(["2", "0"], ["d2", "d0"]).features, made[[2, 0]])


def test_rows_may_be_arrays_of_any_shape_beside_their_mask(tmp_path):
    store = RowStore(tmp_path, "drone", RECIPE)
    store.open()
    rng = np.random.default_rng(0)
    cells, mask = rng.standard_normal((5, 4, 3, 2)).astype(np.float32), rng.random((5, 3, 2)) > 0.5
    digests = [f"d{row}" for row in range(5)]
    store.append_arrays(digests[:2], digests[:2], {"cells": cells[:2], "mask": mask[:2]})
    store.append_arrays(digests[2:], digests[2:], {"cells": cells[2:], "mask": mask[2:]})
    found = RowStore(tmp_path, "drone", RECIPE)
    assert found.digests() == set(digests)
    np.testing.assert_array_equal(found.read(["d4", "d0"], "cells"), cells[[4, 0]].astype(np.float16))
    np.testing.assert_array_equal(found.read(["d4", "d0"], "mask"), mask[[4, 0]])
    with pytest.raises(InputError, match="holds no row of 1 of 2 images"):
        found.read(["d4", "x"], "cells")


def test_what_the_store_writes_is_a_foreign_table(tmp_path):
    store = opened(tmp_path)
    store.append(["d0", "d1"], ["0.jpg", "1.jpg"], rows(2))
    table = read_table(store.folder, "drone")
    assert table.image_ids == ["0.jpg", "1.jpg"]
    np.testing.assert_array_equal(table.features, rows(2))
    [part] = store.folder.glob("*.parquet")
    assert pq.read_schema(part).field("feature").type == pa.list_(pa.float16(), 3)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)]
)
def test_every_sort_of_float_list_is_read(tmp_path, kind):
    path = foreign(tmp_path / "t.parquet", feature=pa.array([[1, 2], [3, 4]], kind))
    table = read_table(str(path), "drone")
    assert table.features.dtype == np.float16
    np.testing.assert_array_equal(table.features, [[1, 2], [3, 4]])


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
    table = FeatureTable(["a", "b", "c"], rows(3))
    found = select(table, iter(["c", "a"]))
    assert found.image_ids == ["c", "a"]
    np.testing.assert_array_equal(found.features[:, 0], [2, 0])
    assert len(select(table, [])) == 0


def test_select_counts_and_names_missing_ids():
    with pytest.raises(
        InputError, match=r"lacks 2 of 3 images \(first: 'x'\); its image_id must be the path"
    ):
        select(FeatureTable(["a"], rows(1)), ["x", "a", "y"])


def test_views_of_two_dimensions_are_refused():
    check_same_dimension(FeatureTable(["a"], rows(1)), FeatureTable(["b"], rows(1)))
    with pytest.raises(InputError, match="query features have 3 dimensions and reference features 4"):
        check_same_dimension(FeatureTable(["a"], rows(1)), FeatureTable(["b"], rows(1, dimension=4)))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": True})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_write_makes_its_folder_and_replaces_the_file_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    for tree in ({"a": [1] * 100}, {"b": None}):
        write_json(path, tree)
        assert json.loads(path.read_text()) == tree
    assert os.listdir(path.parent) == ["file.json"]
