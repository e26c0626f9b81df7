"""The feature store: what it keeps, finds again and refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureStore, RowStore, fingerprint
from cvgl_ray.features.table import read_table, select
from cvgl_ray.storage.files import file_digest

RECIPE = {"backbone": {"name": "x"}, "weights": "00"}


def rows(count: int, dimension: int = 3, start: int = 0) -> np.ndarray:
    """Rows that name themselves: row i is [i, i, ...]."""
    return np.repeat(np.arange(start, start + count, dtype=np.float32)[:, None], dimension, axis=1)


def opened(root: Path, recipe: dict[str, Any] = RECIPE, view: str = "drone") -> FeatureStore:
    store = FeatureStore(root, view, recipe)
    store.open()
    return store


def test_rows_come_back_by_image_in_the_order_asked(tmp_path):
    store = opened(tmp_path)
    store.append(["d0", "d1"], ["0.jpg", "1.jpg"], rows(2))
    store.append(["d2"], ["2.jpg"], rows(1, start=2))
    table = select(store.table(["2.jpg", "0.jpg", "rejected.jpg"], ["d2", "d0", "!"]))
    assert table.image_ids == ["2.jpg", "0.jpg"]
    assert table.features.dtype == np.float16
    np.testing.assert_array_equal(table.features[:, 0], [2, 0])
    assert (len(table), table.dimension) == (2, 3)


def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path):
    opened(tmp_path).append(["d0", "d1"], ["0", "1"], rows(2))
    again = opened(tmp_path)
    assert again.digests() == {"d0", "d1"}
    again.append(["d2"], ["2"], rows(1, start=2))
    np.testing.assert_array_equal(
        select(again.table(["0", "1", "2"], ["d0", "d1", "d2"])).features[:, 0], [0, 1, 2]
    )


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
    found = select(store.table(digests.tolist(), digests.tolist()))
    np.testing.assert_array_equal(found.features[:, 0], np.arange(6))


def test_one_picture_under_two_names_is_one_row(tmp_path):
    digest = file_digest(b"the same bytes")
    assert digest == file_digest(b"the same bytes") != file_digest(b"other bytes")
    store = opened(tmp_path)
    store.append([digest], ["a.jpg"], rows(1, start=7))
    table = select(store.table(["a.jpg", "copy.jpg"], [digest, digest]))
    np.testing.assert_array_equal(table.features[:, 0], [7, 7])


@pytest.mark.parametrize(
    "other", [{"weights": "01"}, {"backbone": {"name": "y"}}, {"pretransform": {"flip": True}}]
)
def test_another_recipe_never_meets_old_rows(tmp_path, other):
    opened(tmp_path).append(["d0"], ["0"], rows(1))
    changed = opened(tmp_path, RECIPE | other)
    assert changed.digests() == set()
    with pytest.raises(InputError, match=r"holds no features; run `cvgl-ray extract` first"):
        select(changed.table(["0"], ["d0"]))
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
    assert len(select(store.table(["0"], ["d0"]))) == 1


def test_a_truncated_part_is_named(tmp_path):
    store = opened(tmp_path)
    store.append(["d0"], ["0"], rows(1))
    [part] = store.folder.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    for read in (store.digests, lambda: select(store.table(["0"], ["d0"]))):
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
        found = select(again.table([f"{row}.jpg" for row in asked], [f"d{row}" for row in asked]))
        np.testing.assert_array_equal(found.features, made[asked])


def test_all_rows_are_read_whole_and_checked(tmp_path):
    store = opened(tmp_path)
    made, everything = wide(store), [f"d{row}" for row in range(40)]
    np.testing.assert_array_equal(select(opened(tmp_path).table(everything, everything)).features, made)


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
            found = select(opened(tmp_path).table(["5"], ["d5"])).features
        except InputError:
            caught += 1
        else:
            np.testing.assert_array_equal(found, made[[5]])
        with pytest.raises(InputError):
            select(opened(tmp_path).table([f"{row}" for row in range(9)], [f"d{row}" for row in range(9)]))
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
    np.testing.assert_array_equal(select(store.table(["2", "0"], ["d2", "d0"])).features, made[[2, 0]])


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
    np.testing.assert_array_equal(table.rows(["1.jpg", "0.jpg"]), rows(2)[::-1])
    [part] = store.folder.glob("*.parquet")
    assert pq.read_schema(part).field("feature").type == pa.list_(pa.float16(), 3)
