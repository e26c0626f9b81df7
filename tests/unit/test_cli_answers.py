"""What the commands hand to their stages, and what they print of the answer."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import load_config
from cvgl_ray.synthetic.untrained import UNTRAINED

REPORT: dict[str, Any] = {"frozen": {}, "adapted": {}, "labels_read": False, "selection": {}}


def catalog(folder: Path) -> None:
    """What a run over University-1652's layout leaves of its data set."""
    names = {"query_drone/7/a b": ("drone", "query"), "gallery_satellite/7/c": ("satellite", "gallery")}
    names |= {"gallery_satellite/8/d": ("satellite", "gallery")}
    rows = [
        {"image_id": f"test/{name}.jpg", "uri": f"/d/test/{name}.jpg", "view": view, "split": split}
        for name, (view, split) in names.items()
    ]
    folder.mkdir()
    Catalog.from_rows(rows).write(str(folder / "catalog.parquet"))


def test_an_output_may_be_a_uri(run, stages):
    calls = []
    stages.evaluate_stage = lambda _bundle, output, **_: calls.append(output) or (REPORT, output)
    assert "metrics: s3://bucket/run/metrics.json\n" in run("evaluate", "--output", "s3://bucket/run/")[1]
    assert calls == ["s3://bucket/run"]


def test_options_reach_the_stage(run, stages, tmp_path):
    (tmp_path / "c.toml").write_text("[mstep]\nrounds = 3\n")
    calls = []

    def evaluate_stage(bundle: Any, output: str, **more: Any) -> tuple[dict[str, Any], str]:
        calls.append((str(bundle), output, *more.values()))
        return REPORT, f"{output}/evaluation"

    stages.evaluate_stage = evaluate_stage
    options = [
        "--config",
        str(tmp_path / "c.toml"),
        "--set",
        "run.seed=5",
        "--output",
        "o",
        "--address",
        "local",
    ]
    assert "metrics: o/evaluation/metrics.json\n" in run("evaluate", *options)[1]
    assert run("evaluate", *options, "--bundle", "b")[0] == 0
    rest = ("o", str(tmp_path / "c.toml"), ("run.seed=5",), "local")
    assert calls == [("None", *rest), ("b", *rest)]


def test_a_training_ends_with_the_next_command(run, stages, tmp_path):
    folder = str(tmp_path / "o")
    stages.train_stage = lambda *_: catalog(tmp_path / "o") or REPORT
    code, out, _ = run("train", "--output", folder)
    assert code == 0
    assert "no labels" in out
    assert f"metrics: {folder}/metrics.json\n" in out
    assert f"bundle:  {folder}/bundle\n" in out
    assert out.endswith(
        f"next:    cvgl-ray localize --bundle {folder}/bundle --gallery /d/test/gallery_satellite "
        "--query '/d/test/query_drone/7/a b.jpg'\n"
    )


def test_extract_counts_and_names_rejected_images(run, stages):
    broken = [{"uri": f"{i}.jpg", "reason": "the file is empty"} for i in range(7)]
    found = SimpleNamespace(extracted=3, reused=4, rejected=broken)
    stages.extract_stage = lambda *_: SimpleNamespace(extraction=found)
    code, out, _ = run("extract", "--set", "dataset.root=/a b", "--output", "o")
    assert code == 0
    assert out.endswith("next:     cvgl-ray train --set 'dataset.root=/a b' --output o\n")
    assert out.startswith(
        "features: 3 extracted, 4 reused, 7 rejected\n  rejected 0.jpg: the file is empty\n"
    )
    assert out.count("  rejected ") == 5


def test_localize_prints_coordinates_where_they_are_known(run, monkeypatch):
    known = {"image_id": "a.jpg", "uri": "/a.jpg", "similarity": 0.5, "latitude": 1.5, "longitude": -2.25}
    unknown = known | {"image_id": "b.jpg", "latitude": None, "longitude": None}
    found = [{"query": "q.jpg", "references": [known, unknown]}]
    module = SimpleNamespace(localize=lambda *_, **__: found)
    monkeypatch.setitem(sys.modules, "cvgl_ray.distributed.localize", module)
    options = ["localize", "--bundle", "b", "--gallery", "g", "--query", "q.jpg"]
    code, out, _ = run(*options)
    assert code == 0
    assert out == "q.jpg\n   1  0.500  a.jpg  1.500000, -2.250000\n   2  0.500  b.jpg\n"
    assert json.loads(run(*options, "--json")[1]) == found


def test_synth_prints_a_command_that_needs_no_download(run, tmp_path, monkeypatch):
    grey = np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr("cvgl_ray.synthetic.writer.render_place", lambda *_: (grey, [grey]))
    world = tmp_path / "a world"
    options = ("--places", "1", "--test-places", "1", "--views", "1", "--image-size", "32")
    code, out, _ = run("synth", "--output", str(world), *options)
    assert code == 0
    prefix = "next:  cvgl-ray train "
    assert out.splitlines()[-1].startswith(prefix)
    words = shlex.split(out.splitlines()[-1].removeprefix(prefix))
    assert words == [
        "--config",
        f"{world}/untrained.toml",
        "--set",
        f"dataset.root={world}",
        "--output",
        "runs/a world",
    ]
    assert load_config(words[1], (words[3],)) == load_config(None, (*UNTRAINED, words[3]))
