"""What a job is told, and where its files go: errors of workers as one sentence, output under a URI."""

import sys
from pathlib import Path

import pytest
import ray
import timm
from safetensors.torch import save_file
from tiny import SMALL, configured

from cvgl_ray import cli
from cvgl_ray.errors import InputError, root_cause
from cvgl_ray.stages import train_stage


def test_bad_input_that_a_worker_finds_is_one_sentence(
    run: Path,
    places: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    state["conv_stem.weight"].fill_(float("nan"))
    save_file(state, tmp_path / "broken.safetensors")
    overrides = {
        "an extraction actor": (f"backbone.checkpoint={tmp_path}/broken.safetensors",),
        "a training worker": ("mstep.learning_rate=1e30", f"features.cache={run / 'features'}"),
    }
    for name, more in overrides.items():
        settings = (f"dataset.root={places}", *SMALL, "run.max_failures=0", *more)
        options = [part for setting in settings for part in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["cvgl-ray", "train", "--output", str(tmp_path / name), *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2, name
        assert "finite" in capsys.readouterr().err.splitlines()[-1], name


def test_bad_input_that_a_task_finds_is_its_root_cause() -> None:
    @ray.remote
    def task() -> None:
        raise InputError("found, expected, what to do")

    with pytest.raises(InputError) as error:
        ray.get(task.remote())
    assert "Traceback" in str(error.value) or "ray::task" in str(error.value)
    assert str(root_cause(error.value)) == "found, expected, what to do"


def test_a_run_under_a_uri_leaves_everything_there(run: Path, places: Path, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store"
    report = train_stage(configured(places), uri)
    left = {path.relative_to(tmp_path / "store") for path in (tmp_path / "store").rglob("*")}
    there = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    stable = {path for path in there if path.parts[0] in ("bundle", "run.json", "metrics.json", ".complete")}
    assert stable <= left
    for folder in ("train", "tensorboard", "features/drone", "features/satellite"):
        assert any(path.is_relative_to(folder) for path in left - {Path(folder)})
    names = ("bundle/adapter.safetensors", "metrics.json")
    for name in names:
        assert (tmp_path / "store" / name).read_bytes() == (run / name).read_bytes()
    assert train_stage(configured(places), uri) == report
    with pytest.raises(InputError, match=rf"^{uri} holds a run of another configuration \(run\.seed was 0"):
        train_stage(configured(places, "run.seed=1"), uri)
