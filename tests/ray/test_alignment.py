"""A training that lays its images on each other: what it finds by itself, whatever the number of workers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import configured

from cvgl_ray.bundle import load_bundle
from cvgl_ray.config import Config
from cvgl_ray.distributed.localize import localize
from cvgl_ray.errors import InputError
from cvgl_ray.stages import evaluate_stage, train_stage

PLACES = 24
ALIGNED = (
    "alignment.use=yes",
    "alignment.side=8",
    "alignment.headings=4",
    "alignment.widths=[1.0, 1.33, 1.8]",
    "alignment.candidates=6",
    "adapter.kind=attenuation",
    "mstep.rounds=2",
    "pretransform.query.crops=auto",
    "pretransform.query.orientations=auto",
    "pretransform.reference.orientations=auto",
    "run.agreement=false",
)


def own(root: Path, *more: str) -> Config:
    return configured(root, *ALIGNED, *more)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles, and pictures of a third more ground on each side, turned by a quarter clockwise."""
    root = tmp_path_factory.mktemp("turned")
    for view in ("drone", "satellite"):
        (root / view).mkdir()
    lines = ["image_id,place_id"]
    for number in range(PLACES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        ground = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
        pixels = np.array(ground).astype(int)
        tile = pixels[24:168, 24:168]
        seen = np.rot90(pixels, -1) * 0.7 + 40 + rng.normal(0, 8, pixels.shape)
        for view, picture in (("satellite", tile), ("drone", seen)):
            name = f"{number + (50 if view == 'drone' else 0):03d}.png"
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / view / name)
            lines.append(f"{view}/{name},{number}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def aligned(turned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("aligned")
    train_stage(own(turned), output)
    return output


def test_heading_and_footprint_are_found_and_the_vectors_use_them(aligned: Path) -> None:
    chosen = json.loads((aligned / "choice.json").read_text())
    assert chosen["choice"]["query_headings"] == [90.0, 180.0]
    assert chosen["choice"]["query_crops"][-1] == pytest.approx(0.75, abs=0.05)
    view = load_bundle(aligned / "bundle").config.pretransform.query
    assert (view.heading, view.orientations) == (90.0, 2)
    metrics = json.loads((aligned / "metrics.json").read_text())
    for figures in metrics["aligned"].values():
        assert figures["R@1"] > 90
    assert min(f["R@1"] for f in metrics["aligned"].values()) >= max(
        f["R@1"] for f in metrics["frozen"].values()
    )


def test_two_workers_find_the_pairs_and_poses_of_one(aligned: Path, turned: Path, tmp_path: Path) -> None:
    train_stage(own(turned, "run.workers=2"), tmp_path / "two")
    one, two = (load_bundle(folder / "bundle").alignment for folder in (aligned, tmp_path / "two"))
    assert one is not None
    assert two is not None
    assert one.learned.keys() == two.learned.keys()
    for name, value in one.learned.items():
        np.testing.assert_array_equal(value.numpy(), two.learned[name].numpy(), name)


def test_a_bundle_evaluates_and_locates_as_its_training(aligned: Path, turned: Path) -> None:
    trained = json.loads((aligned / "metrics.json").read_text())
    report, _ = evaluate_stage(aligned / "bundle", aligned)
    assert report["aligned"] == trained["aligned"]
    [found] = localize(aligned / "bundle", str(turned / "satellite"), [turned / "drone/057.png"], 3)
    best = found["references"][0]
    assert best["image_id"] == "007.png"
    assert best["confidence"] > 0.5
    assert best["pose"]["heading_deg"] == 270.0
    assert best["pose"]["width"] == 1.33
    assert max(abs(best["pose"]["down"]), abs(best["pose"]["right"])) < 0.1


def test_what_cannot_be_aligned_is_said_before_anything_is_read(turned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alignment\.use is \"yes\", and .* alignment\.memory_gib = 1e-06"):
        train_stage(own(turned, "alignment.memory_gib=0.000001"), tmp_path)
    assert not (tmp_path / "cells").exists()
