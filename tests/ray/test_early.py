"""What can be known to be wrong is told before anything is extracted and before a folder is claimed."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import configured

from cvgl_ray.config import load_config
from cvgl_ray.distributed.localize import localize
from cvgl_ray.errors import InputError
from cvgl_ray.features.recipe import build_backbone
from cvgl_ray.stages import evaluate_stage, extract_stage, train_stage


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.name=swin_tiny", r"not a timm model; near it: swin_tiny_"),
        ("backbone.checkpoint=none.pth", "checkpoint none.pth is not a file"),
        ("dataset.root=/none", "'/none' holds neither the folders drone and satellite nor train and test"),
        ("dataset.query_view=street", r"there is no '.*train/street'"),
        ("features.table=none.parquet", "none.parquet"),
        ("run.workers=1000", r"run\.workers = 1000"),
    ],
)
def test_a_training_that_cannot_be_claims_no_folder(
    places: Path, tmp_path: Path, override: str, message: str
) -> None:
    config = configured(places, override)
    with pytest.raises(InputError, match=message):
        train_stage(config, tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()
    if not override.startswith("run."):
        with pytest.raises(InputError, match=message):
            extract_stage(config, tmp_path / "run")


def test_a_bundle_that_cannot_be_used_here_says_so_before_anything_is_read(run: Path, tmp_path: Path) -> None:
    moved = ("backbone.checkpoint=moved.safetensors",)
    with pytest.raises(InputError, match=r"checkpoint moved\.safetensors is not a file"):
        evaluate_stage(run / "bundle", tmp_path / "e", overrides=moved)
    with pytest.raises(InputError, match=r"checkpoint moved\.safetensors is not a file"):
        localize(run / "bundle", str(tmp_path), ["query.png"], overrides=moved)
    with pytest.raises(InputError, match="is no bundle"):
        evaluate_stage(tmp_path / "none", tmp_path / "e")
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_bundle_travels_and_is_told_where_the_weights_lie_now(places: Path, tmp_path: Path) -> None:
    backbone = configured(places).backbone
    for number, name in enumerate(("there.pth", "other.pth")):
        state = build_backbone(backbone.model_copy(update={"seed": number})).model.state_dict()
        torch.save(state, tmp_path / name)
    train_stage(configured(places, f"backbone.checkpoint={tmp_path / 'there.pth'}"), tmp_path / "run")
    bundle = shutil.copytree(tmp_path / "run/bundle", tmp_path / "elsewhere/bundle")
    weights = (tmp_path / "there.pth").rename(tmp_path / "here.pth")
    query, gallery = places / "test/query_drone/0005/image-1.png", str(places / "test/gallery_satellite")
    with pytest.raises(InputError, match=r"there\.pth is not a file"):
        localize(bundle, gallery, [query], 1)
    here = (f"backbone.checkpoint={weights}",)
    assert localize(bundle, gallery, [query], 1, overrides=here)[0]["references"]
    with pytest.raises(InputError, match="was trained on other features"):
        localize(bundle, gallery, [query], 1, overrides=(f"backbone.checkpoint={tmp_path / 'other.pth'}",))
    # The run goes on with the same weights elsewhere, and with no others.
    assert train_stage(configured(places, *here), tmp_path / "run")["evaluated_with_labels"]
    (tmp_path / "other.pth").rename(tmp_path / "there.pth")
    with pytest.raises(InputError, match=r"backbone\.checkpoint was '\w+', now '\w+'"):
        train_stage(configured(places, f"backbone.checkpoint={tmp_path / 'there.pth'}"), tmp_path / "run")


def table(path: Path, views: dict[str, np.ndarray]) -> Path:
    """A table of features alone, with places: row i of either view shows place i."""
    rows = [
        (f"{view}/{i}", view, str(i), row.tolist()) for view, x in views.items() for i, row in enumerate(x)
    ]
    columns = zip(("image_id", "view", "place_id", "feature"), zip(*rows, strict=True), strict=True)
    pq.write_table(pa.table({name: list(column) for name, column in columns}), path)
    return path


def test_a_table_of_features_alone_is_a_data_set_and_its_bundle_localises(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    satellite = rng.standard_normal((40, 16)).astype(np.float32)
    drone = satellite + 0.3 * rng.standard_normal(satellite.shape).astype(np.float32) + 1.0
    path = table(tmp_path / "t.parquet", {"drone": drone, "satellite": satellite})
    report = train_stage(load_config(None, (f"features.table={path}",)), tmp_path / "run")
    assert report["adapted"]["drone->satellite"]["R@1"] > 90
    again, _ = evaluate_stage(None, tmp_path / "run")
    assert again["adapted"] == report["adapted"]
    found = localize(tmp_path / "run/bundle", str(path), [path], 3)
    right = sum(
        query["query"].split("/")[1] == query["references"][0]["image_id"].split("/")[1] for query in found
    )
    assert (len(found), right > 36) == (40, True)
    other = table(tmp_path / "other.parquet", {"drone": drone[:, :8], "satellite": satellite[:, :8]})
    with pytest.raises(
        InputError, match="--query has features of 8 dimensions, and the bundle was trained on 16"
    ):
        localize(tmp_path / "run/bundle", str(path), [other], 3)
