"""Rows on their way into the object store: where they lay changes nothing, and the driver holds none."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from cvgl_ray.distributed.rows import in_store, share
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.table import FeatureTable, Table, read_table

VIEWS = {"drone": 12_000, "satellite": 8_000}  # rows
DIMENSION = 1024
NAMES = {view: [f"{view}/{row}" for row in range(count)] for view, count in VIEWS.items()}


def made(view: str) -> np.ndarray:
    return np.random.default_rng(VIEWS[view]).random((VIEWS[view], DIMENSION), np.float32).astype(np.float16)


def stored(root: Path, view: str) -> Table:
    store = FeatureStore(root, view, {})
    store.open()
    for start in range(0, VIEWS[view], 2048):
        part = slice(start, start + 2048)
        store.append(NAMES[view][part], NAMES[view][part], made(view)[part])
    return store.table(NAMES[view], NAMES[view])


def foreign(root: Path, view: str) -> Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(made(view).reshape(-1)), DIMENSION)
    columns = {"image_id": NAMES[view], "view": [view] * VIEWS[view], "feature": lists}
    pq.write_table(pa.table(columns), root / f"{view}.parquet")
    return read_table(root / f"{view}.parquet", view)


def peak() -> int:
    """Of this process since `forget_peak`, without what it shares with others, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def forget_peak() -> int:
    """Begin a new peak; what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def test_rows_are_shared_alike_wherever_they_lie_and_the_driver_holds_none(tmp_path: Path) -> None:
    in_memory = [FeatureTable(NAMES[view], made(view)) for view in VIEWS]
    expected = share(*in_memory)
    query, reference = (ray.get(rows) for rows in expected.features)
    order = {name: row for row, name in enumerate(NAMES["drone"])}
    assert expected.query_ids != NAMES["drone"]
    np.testing.assert_array_equal(query, in_memory[0].features[[order[name] for name in expected.query_ids]])
    assert (len(query), len(reference)) == tuple(VIEWS.values())
    del in_memory, query, reference

    for lazy in (stored, foreign):
        tables = [lazy(tmp_path, view) for view in VIEWS]
        held = forget_peak()
        found = share(*tables)
        grown = peak() - held
        assert found.digest == expected.digest
        assert found.query_ids == expected.query_ids
        np.testing.assert_array_equal(found.centre, expected.centre)
        np.testing.assert_array_equal(found.banked[1], expected.banked[1])
        rows = sum(VIEWS.values()) * DIMENSION * 2
        assert grown < rows / 4, f"{lazy.__name__}: {grown / 2**20:.0f} MiB of {rows / 2**20:.0f}"
    loaded = ray.get(in_store({"drone": tables[0].only(NAMES["drone"][5:7])})["drone"])
    np.testing.assert_array_equal(loaded.features, made("drone")[5:7])


def test_a_table_that_changed_under_way_is_told(tmp_path: Path) -> None:
    tables = [foreign(tmp_path, view) for view in VIEWS]
    os.replace(tmp_path / "satellite.parquet", tmp_path / "drone.parquet")
    with pytest.raises(InputError, match="changed while it was read; run the command again"):
        share(*tables)
