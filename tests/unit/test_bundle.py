"""A bundle comes back as it was saved, whole or not at all, and says what is wrong with it."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cvgl_ray.bundle import ARRAYS, Bundle, BundledAlignment, load_bundle, save_bundle
from cvgl_ray.config import Config
from cvgl_ray.em.build import build_adapter
from cvgl_ray.errors import InputError

PAIRS = [("drone/1.jpg", "satellite/ü 1.jpg", 0.5), ("drone/2.jpg", "satellite/2.jpg", 0.25)]
RECIPES = {"drone": {"backbone": "vit", "layers": [1, "final"]}, "satellite": {"backbone": "vit"}}

TRAINED_ON = np.arange(3, dtype=np.uint64), np.arange(2, dtype=np.uint64)
FILES = ["config.json", "metrics.json", *(f"{name}.safetensors" for name in ARRAYS)]
BANKS = np.eye(3, 8, dtype=np.float16), np.ones((2, 8), np.float16)


def bundle(dimension=8, **adapter):
    config = Config.model_validate({"adapter": adapter})
    made = build_adapter(config.adapter, dimension, torch.randn(2, dimension), seed=0)
    with torch.no_grad():
        for value in made.state_dict().values():
            value.add_(torch.rand_like(value))
    return Bundle(made, BANKS, config, RECIPES, {"mutual": 0.5}, TRAINED_ON)


def edit(path, change):
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    "adapter",
    [
        {},
        {"rank": 3, "norm": "none"},
        {"kind": "linear"},
        {"kind": "linear", "norm": "batch", "width": 5, "init": "random"},
        {"kind": "linear", "residual": True, "norm": "none"},
    ],
)
def test_roundtrip(tmp_path, adapter):
    saved = bundle(**adapter)
    save_bundle(tmp_path / "run" / "bundle", saved, PAIRS)
    loaded = load_bundle(tmp_path / "run" / "bundle")
    assert (loaded.config, loaded.recipes, loaded.scores) == (saved.config, saved.recipes, saved.scores)
    features = torch.randn(4, 8)
    assert torch.equal(loaded.adapter(features, 1), saved.adapter.eval()(features, 1))
    assert not loaded.adapter.training
    for bank, expected in zip(loaded.banks, BANKS, strict=True):
        np.testing.assert_array_equal(bank, expected)
    for digests, expected in zip(loaded.trained_on, TRAINED_ON, strict=True):
        np.testing.assert_array_equal(digests, expected)
    table = pq.read_table(tmp_path / "run" / "bundle" / "pseudo_labels.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == PAIRS
    assert table.column_names == ["query", "reference", "cosine"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["bundle"]


def test_no_pair_at_all_is_an_empty_table(tmp_path):
    save_bundle(tmp_path / "b", bundle(), [])
    table = pq.read_table(tmp_path / "b" / "pseudo_labels.parquet")
    assert (table.num_rows, table.num_columns) == (0, 3)


def test_a_later_bundle_replaces_an_earlier_one(tmp_path):
    save_bundle(tmp_path / "b", bundle(), PAIRS)
    (tmp_path / "b" / "stale.txt").write_text("from the earlier run")
    save_bundle(tmp_path / "b", bundle(dimension=6), [])
    assert load_bundle(tmp_path / "b").adapter.dimension == 6
    assert not (tmp_path / "b" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("fault", ["pairs", "recipes"])
def test_a_save_that_fails_leaves_the_earlier_bundle(tmp_path, fault):
    earlier = bundle()
    save_bundle(tmp_path / "b", earlier, PAIRS)
    files = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    recipes = {"drone": object()} if fault == "recipes" else {}
    broken = Bundle(bundle().adapter, BANKS, Config(), recipes, {}, TRAINED_ON)
    with pytest.raises((TypeError, ValueError)):
        save_bundle(tmp_path / "b", broken, [("drone/1.jpg",), ("a", "b")] if fault == "pairs" else [])
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == files
    save_bundle(tmp_path / "b", earlier, PAIRS)  # what the failure left behind is in nobody's way
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    save_bundle(tmp_path / "b", bundle(), PAIRS)
    (tmp_path / "b" / name).unlink()
    with pytest.raises(InputError, match=f"is no bundle: {name}: No such file"):
        load_bundle(tmp_path / "b")


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is no bundle.*give DIR/bundle"):
        load_bundle(tmp_path / "nowhere")
    save_bundle(tmp_path / "b", bundle(), PAIRS)
    with pytest.raises(InputError, match=r"is no bundle: config.json: Not a directory"):
        load_bundle(tmp_path / "b" / "adapter.safetensors")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 0.6])
def test_a_truncated_file(tmp_path, name, size):
    save_bundle(tmp_path / "b", bundle(), PAIRS)
    content = (tmp_path / "b" / name).read_bytes()
    (tmp_path / "b" / name).write_bytes(content[: int(size * len(content))])
    with pytest.raises(InputError, match="cannot be read"):
        load_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(dimension=9), "size mismatch"),
        (lambda d: d["config"]["adapter"].update(rank=3), "size mismatch"),
        (lambda d: d["config"]["adapter"].update(kind="linear"), "Missing key"),
        (lambda d: d["config"]["adapter"].update(norm="batch"), 'norm "batch" needs kind = "linear"'),
        (lambda d: d["config"]["adapter"].update(norm="whitening"), "adapter.norm"),
        (lambda d: d["config"].update(surprise=1), "surprise"),
        (lambda d: d.update(dimension="eight"), "cannot be read"),
        (lambda d: d.pop("recipes"), "no key 'recipes'"),
        (lambda d: d.update(format=1), "its format is 1, expected 4"),
    ],
)
def test_a_tampered_description(tmp_path, change, reason):
    save_bundle(tmp_path / "b", bundle(), PAIRS)
    edit(tmp_path / "b" / "config.json", change)
    with pytest.raises(InputError, match=f"cannot be read.*{reason}|{reason}"):
        load_bundle(tmp_path / "b")


def test_cells_of_another_kind_than_learned_of_are_refused():
    learned = BundledAlignment({}, None, {"drone": {"layer": 7}, "satellite": {"layer": 7}})
    learned.check({"drone": {"layer": 7}})
    with pytest.raises(InputError, match="view 'satellite' as they are made here are of another kind"):
        learned.check({"drone": {"layer": 7}, "satellite": {"layer": 9}})
    with pytest.raises(InputError, match="cannot be compared with those the bundle learned of"):
        BundledAlignment({}, None, {}).check({"drone": {"layer": 7}})
