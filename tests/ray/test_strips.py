"""Street panoramas from a folder to a heading: a training that aligns them, its evaluation, one located."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed import cells
from cvgl_ray.distributed.localize import localize
from cvgl_ray.features.pretransform import unroll
from cvgl_ray.stages import evaluate_stage, train_stage

PLACES, SHAPE = 24, (64, 256)
STRIPS = Path(__file__).parents[2] / "experiments/street_panorama.toml"


def write_looking_east(root: Path) -> Path:
    """Tiles, and panoramas from their middles whose middle is the east, in another light."""
    for view in ("street", "satellite"):
        (root / view).mkdir()
    lines = ["image_id,place_id"]
    for number in range(PLACES):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        tile = np.array(coarse.resize((128, 128), Image.Resampling.BICUBIC))
        north = unroll(torch.from_numpy(tile).permute(2, 0, 1), SHAPE).permute(1, 2, 0).numpy()
        seen = np.roll(north, -SHAPE[1] // 4, axis=1) * 0.7 + 40 + rng.normal(0, 8, north.shape)
        for view, name, picture in (("satellite", number, tile), ("street", number + 50, seen)):
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / view / f"{name:03d}.png")
            lines.append(f"{view}/{name:03d}.png,{number}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def own(root: Path) -> Config:
    changes = (
        f"dataset.root={root}",
        "backbone.name=test_resnet",
        "backbone.pretrained=false",
        f"backbone.image_size={list(SHAPE)}",
        "features.batch_size=24",
        "alignment.use=yes",
        "alignment.headings=16",
        "alignment.candidates=6",
        "mstep.rounds=2",
        "run.agreement=false",
    )
    return load_config(STRIPS, changes)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_looking_east(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def trained(streets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    train_stage(own(streets), output)
    return output


def test_panoramas_are_evaluated_as_their_training_aligned_them(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "build_cell_model", None)  # all are stored
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(metrics["aligned"]) == {"street->satellite", "satellite->street"}
    for figures in metrics["aligned"].values():
        assert figures["R@1"] > 90
    report, _ = evaluate_stage(trained / "bundle", trained)
    assert report["aligned"] == metrics["aligned"]


def test_a_panorama_is_located_with_its_heading(trained: Path, streets: Path) -> None:
    [found] = localize(trained / "bundle", str(streets / "satellite"), [streets / "street/057.png"], 3)
    best = found["references"][0]
    assert best["image_id"] == "007.png"
    assert best["confidence"] > 0.5
    assert best["pose"]["heading_deg"] == 90.0
