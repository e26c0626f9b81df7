"""Every reader of a file that somebody else may have made, fed with nonsense: only clear errors come out."""

import io
import json
import os
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cvgl_ray.bundle import Bundle, load_bundle, save_bundle
from cvgl_ray.catalog import folders
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Config, load_config
from cvgl_ray.em.build import build_adapter
from cvgl_ray.errors import InputError
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.features.table import read_table
from cvgl_ray.features.weights import build_model
from cvgl_ray.storage import run_record

MORE = int(os.environ.get("FUZZ_MORE", "1"))  # so many times as long, and with other examples each time
EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


def fuzzed(examples: int) -> Callable[..., Any]:
    """The same examples in each run, so that a red test stays red, unless more are asked for."""
    return settings(
        max_examples=examples * MORE,
        deadline=None,
        derandomize=MORE == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def only_clear_errors(read: Callable[[], object]) -> None:
    """A reader may succeed, or say in one sentence what is wrong."""
    try:
        read()
    except (InputError, BrokenImageError) as error:
        message = " ".join(str(error).split())
        assert message
        assert "Traceback" not in message


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes changed, cut out or put in, perhaps cut short."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(changed)))
        length = draw(st.sampled_from([0, 1, 1, 1, 4, 50]))
        changed[where : where + length] = draw(st.binary(max_size=8))
    return bytes(changed[: draw(st.integers(0, len(changed)))] if draw(st.integers(0, 3)) == 0 else changed)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["s3://", "file://x", "../..", "/", "~", "\0", "final", "{}", "a" * 5000]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
keys = st.sampled_from(
    [f"{name}.{key}" for name, field in Config.model_fields.items() for key in field.annotation.model_fields]
)


@cache
def toml_files() -> list[bytes]:
    return [path.read_bytes() for path in EXPERIMENTS]


@fuzzed(400)
@given(content=st.one_of(st.binary(max_size=200), st.sampled_from(toml_files()).flatmap(mutated)))
def test_configuration_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "c.toml"
    path.write_bytes(content)
    only_clear_errors(lambda: load_config(path))


@fuzzed(400)
@given(
    overrides=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.builds("{}={}".format, keys, values.map(json.dumps) | st.text(max_size=20)),
            st.builds("{}.{}={}".format, keys, st.text(max_size=5), scalars),
        ),
        max_size=4,
    )
)
def test_overrides(overrides: list[str]) -> None:
    only_clear_errors(lambda: load_config(None, tuple(overrides)))


@fuzzed(250)
@given(tree=values)
def test_run_files(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "run.json").write_text(json.dumps({"config": tree}))
    only_clear_errors(lambda: run_record.claim(folder, "train", Config()))


@cache
def parquet(**columns: pa.Array) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns or feature_columns()), stream)
    return stream.getvalue()


def feature_columns() -> dict[str, Any]:
    features = np.random.default_rng(0).standard_normal((9, 8))
    return {
        "image_id": [f"{row}.jpg" for row in range(9)],
        "view": ["drone"] * 9,
        "feature": pa.array(list(features), pa.list_(pa.float32())),
    }


cells = st.one_of(
    st.lists(st.floats(width=32), max_size=4),
    st.text(max_size=5),
    st.integers(-9, 9),
    st.none(),
    st.booleans(),
)


@fuzzed(400)
@given(content=mutated(parquet()))
def test_damaged_feature_tables(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.parquet"
    path.write_bytes(content)
    only_clear_errors(lambda: read_table(path, "drone"))


@fuzzed(300)
@given(
    table=st.dictionaries(st.sampled_from(["image_id", "view", "feature", "x"]), st.lists(cells, max_size=3))
)
def test_odd_feature_tables(tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[Any]]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        arrays = {name: pa.array(column) for name, column in table.items()}
        pq.write_table(pa.table(arrays), folder / "t.parquet")
    except (pa.ArrowException, TypeError):  # no such table can be written
        return
    only_clear_errors(lambda: read_table(folder / "t.parquet", "drone"))


@cache
def catalog_files() -> tuple[bytes, bytes]:
    rows = [
        {"image_id": f"{row}.jpg", "uri": f"/{row}.jpg", "view": "drone", "split": "train"}
        for row in range(5)
    ]
    catalog, labels = io.BytesIO(), io.BytesIO()
    pq.write_table(Catalog.from_rows(rows).rows, catalog)
    pq.write_table(Labels.from_places({row["image_id"]: "a" for row in rows}).rows, labels)
    return catalog.getvalue(), labels.getvalue()


@fuzzed(300)
@given(catalog=mutated(catalog_files()[0]), labels=mutated(catalog_files()[1]))
def test_damaged_catalogs(tmp_path_factory: pytest.TempPathFactory, catalog: bytes, labels: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "catalog.parquet").write_bytes(catalog)
    (folder / "labels.parquet").write_bytes(labels)
    only_clear_errors(lambda: Catalog.read(str(folder / "catalog.parquet")))
    only_clear_errors(lambda: Labels.read(str(folder / "labels.parquet")))


@fuzzed(250)
@given(
    coordinates=mutated(b"image_id,latitude,longitude\na.jpg,1.5,2.5\nb/c.jpg,-1,179\n")
    | st.binary(max_size=60),
    labels=mutated(b"image_id,place_id\ndrone/a.jpg,x\nsatellite/a.jpg,\n") | st.binary(max_size=60),
)
def test_csv_files(tmp_path_factory: pytest.TempPathFactory, coordinates: bytes, labels: bytes) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    for view in ("drone", "satellite"):
        (root / view).mkdir()
        (root / view / "a.jpg").touch()
    (root / "labels.csv").write_bytes(labels)
    catalog = folders.scan(str(root))
    only_clear_errors(lambda: folders.labels(str(root), catalog))
    (root / "coordinates.csv").write_bytes(coordinates)
    only_clear_errors(lambda: folders.scan(str(root)))


@cache
def bundle_files() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        banks = np.eye(4, dtype=np.float16), np.eye(4, dtype=np.float16)
        trained_on = np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint64)
        made = Bundle(build_adapter(Config().adapter, 4, seed=0), banks, Config(), {}, {}, trained_on)
        save_bundle(Path(folder, "b"), made, [("q", "r", 0.5)])
        return {path.name: path.read_bytes() for path in Path(folder, "b").iterdir()}


@st.composite
def json_with_another_value(draw: st.DrawFn) -> bytes:
    """A bundle's config.json with one value somewhere in it replaced."""
    tree = json.loads(bundle_files()["config.json"])
    node, key = tree, draw(st.sampled_from(sorted(tree)))
    while isinstance(node[key], dict) and node[key] and draw(st.integers(0, 3)):
        node = node[key]
        key = draw(st.sampled_from(sorted(node)))
    node[key] = draw(values)
    return json.dumps(tree).encode()


@fuzzed(400)
@given(data=st.data())
def test_bundles(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name = data.draw(
        st.sampled_from(["config.json", "metrics.json", "adapter.safetensors", "bank.safetensors"])
    )
    for other, content in bundle_files().items():
        (folder / other).write_bytes(content)
    damaged = mutated(bundle_files()[name])
    (folder / name).write_bytes(
        data.draw(damaged | json_with_another_value() if name == "config.json" else damaged)
    )
    only_clear_errors(lambda: load_bundle(folder))


@cache
def pictures() -> list[bytes]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    contents = []
    for mode, kind in (("RGB", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG")):
        stream = io.BytesIO()
        picture = Image.new("I;16", (9, 9)) if mode == "I;16" else image.convert(mode)
        picture.save(stream, kind)
        contents.append(stream.getvalue())
    return contents


@fuzzed(800)
@given(content=st.one_of(st.binary(max_size=60), st.sampled_from(pictures()).flatmap(mutated)))
def test_images(content: bytes) -> None:
    only_clear_errors(lambda: decode(content))


@cache
def weights() -> bytes:
    stream = io.BytesIO()
    torch.save({"conv_stem.weight": torch.zeros(2, 2)}, stream)
    return stream.getvalue()


@fuzzed(25)
@given(content=mutated(weights()) | st.binary(max_size=60), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_backbone_checkpoints(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"weights{suffix}"
    path.write_bytes(content)
    only_clear_errors(lambda: build_model("test_efficientnet", checkpoint=str(path)))


def test_the_experiments_that_are_mutated_are_valid() -> None:
    assert EXPERIMENTS
    for path in EXPERIMENTS:
        tomllib.loads(path.read_text())
