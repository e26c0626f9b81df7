"""A training that lays its images on each other: what it finds by itself, whatever the number of workers."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import ALIGNED, configured, write_turned

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.learned import take_over
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.bundle import load_bundle
from cvgl_ray.config import Config
from cvgl_ray.distributed import align, cells
from cvgl_ray.distributed.align import ClusterScore
from cvgl_ray.distributed.alignment import align_data_set
from cvgl_ray.distributed.cell_server import CellServer
from cvgl_ray.distributed.cell_sources import StoredCells
from cvgl_ray.distributed.data import scan
from cvgl_ray.distributed.localize import localize
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.stages import evaluate_stage, train_stage
from cvgl_ray.storage.checkpoints import last_state

PLACES = 24


def own(root: Path, *more: str) -> Config:
    return configured(root, *ALIGNED, *more)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_turned(tmp_path_factory.mktemp("turned"), PLACES)


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


def test_tensorboard_shows_poses_and_pairs_laid_on_each_other(aligned: Path) -> None:
    shown = EventAccumulator(str(aligned / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    [last] = [event for event in shown.Histograms("alignment/heading_deg") if event.step == 1]
    value = last.histogram_value
    assert value.num > PLACES * 0.8
    assert value.min == value.max == 270.0
    assert shown.Images("alignment/pairs")
    rows = pq.read_table(aligned / "bundle/poses.parquet").to_pylist()
    right = [row for row in rows if int(row["query"][6:9]) - 50 == int(row["reference"][10:13])]
    assert len(right) > 0.9 * len(rows)
    assert {row["heading_deg"] for row in right} == {270.0}


def test_the_bundle_aligns_as_in_the_round_that_is_kept(aligned: Path) -> None:
    state, bundle = last_state(aligned / "train"), load_bundle(aligned / "bundle")
    assert state is not None
    assert bundle.alignment is not None
    kept = state["alignment" if bundle.scores["rounds"] == state["rounds_done"] else "alignment_kept"]
    assert kept.keys() == bundle.alignment.learned.keys()
    assert all(torch.equal(value, bundle.alignment.learned[name]) for name, value in kept.items())


def test_two_workers_find_the_pairs_and_poses_of_one(aligned: Path, turned: Path, tmp_path: Path) -> None:
    train_stage(own(turned, "run.workers=2"), tmp_path / "two")
    assert_same_alignment(aligned, tmp_path / "two")


def assert_same_alignment(left: Path, right: Path) -> None:
    """All arrays that two trainings' alignments have learned agree to the last bit."""
    one, two = (load_bundle(folder / "bundle").alignment for folder in (left, right))
    assert one is not None
    assert two is not None
    assert one.learned.keys() == two.learned.keys()
    for name, value in one.learned.items():
        np.testing.assert_array_equal(value.numpy(), two.learned[name].numpy(), name)


def test_a_bundle_evaluates_and_locates_as_its_training_without_a_model_of_cells(
    aligned: Path, turned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "build_cell_model", None)  # all are stored
    trained = json.loads((aligned / "metrics.json").read_text())
    report, _ = evaluate_stage(aligned / "bundle", aligned)
    assert report["aligned"] == trained["aligned"]
    [found] = localize(aligned / "bundle", str(turned / "satellite"), [turned / "drone/057.png"], 3)
    best = found["references"][0]
    assert best["image_id"] == "007.png"
    assert len(found["references"]) == 3
    assert best["confidence"] > 0.5
    assert best["pose"]["heading_deg"] == 270.0
    assert best["pose"]["width"] == 1.33
    assert max(abs(best["pose"]["down"]), abs(best["pose"]["right"])) < 0.1


def test_an_image_whose_cells_could_not_be_read_is_named(tmp_path: Path) -> None:
    stores = {"drone": FeatureStore(tmp_path, "drone", {})}
    reasons = {"5f": "the file cannot be read (timed out)"}
    found = cells.CellStores(stores, {"drone": {"7.png": "5f"}}, reasons)
    with pytest.raises(InputError, match=r"1 of 1 images .* \(7\.png: .*timed out.*; start the same command"):
        found.load("drone", ["7.png"])


def test_cells_that_do_not_fit_are_read_as_they_are_compared(
    aligned: Path, turned: Path, tmp_path: Path
) -> None:
    cache = f"features.cache={aligned / 'features'}"
    train_stage(own(turned, "alignment.memory_gib=0.000001", cache), tmp_path)
    assert_same_alignment(aligned, tmp_path)
    for name in ("poses.parquet", "pseudo_labels.parquet"):
        held, read = (pq.read_table(folder / "bundle" / name) for folder in (aligned, tmp_path))
        assert held.equals(read)
    assert (aligned / "metrics.json").read_bytes() == (tmp_path / "metrics.json").read_bytes()


@pytest.mark.parametrize("coarse", [False, True])
def test_actors_that_read_cells_score_as_one_process_that_holds_them(
    aligned: Path, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align, "FEW", 0)
    bundle = load_bundle(aligned / "bundle")
    catalog = scan(bundle.config.dataset, "", bundle.config.backbone)
    data = align_data_set(bundle.config, catalog, aligned)[1]
    assert data is not None
    assert bundle.alignment is not None
    ids = [catalog.select(view=view).image_ids for view in data.views]
    proposed = np.stack([(row + np.arange(5)) % PLACES for row in range(PLACES)])
    found = []
    for memory in (2**33, 2**16):
        settings = Settings(memory=memory)
        sources = data.sources(*ids, settings)
        assert [isinstance(source, StoredCells) for source in sources] == [memory < 2**20] * 2
        aligner = Aligner(*sources, settings, ClusterScore(settings))
        take_over(aligner, bundle.alignment.learned)
        compared = aligner.compared(coarse=coarse)
        found.append(aligner.score(*compared, aligner.prior, None if coarse else proposed))
    [query], references = (side.of(np.arange(PLACES)) for side in compared)
    found.append(score_pairs(query, references, aligner.prior, None if coarse else proposed))
    for field in fields(Found):
        for other in found[1:]:
            np.testing.assert_array_equal(getattr(found[0], field.name), getattr(other, field.name))


def test_a_node_that_does_not_see_the_disk_asks_one_that_does(tmp_path: Path) -> None:
    recipe = {"sides": [2], "headings": [0.0], "cells": {"stride": 4}}
    seen, unseen = (FeatureStore(tmp_path / name, "drone", recipe) for name in ("seen", "unseen"))
    rows = np.arange(24, dtype=np.float16).reshape(3, 8)
    seen.append(["a", "b", "c"], ["a", "b", "c"], rows)
    server: Any = ray.remote(num_cpus=0)(CellServer).remote(cells.CellStores({"drone": seen}, {}))
    lacking = cells.CellStores({"drone": unseen}, {})
    [found] = StoredCells(lacking, "drone", ["a", "b", "c"], server).of(np.array([2, 0]))
    np.testing.assert_array_equal(found.maps.flatten(1).numpy(), rows[[2, 0]])


def test_what_cannot_be_aligned_is_said_before_anything_is_read(turned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alignment\.use is \"yes\", and estep\.rows = 5 leaves images out"):
        train_stage(own(turned, "estep.rows=5", "estep.neighbourhood=0"), tmp_path)
    assert not (tmp_path / "cells").exists()
