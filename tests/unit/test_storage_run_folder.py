"""The run's folder: one run at a time, one configuration for ever."""

import json
import subprocess
import sys

import pytest

from cvgl_ray import __version__
from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.storage import run_folder

HOLDER = """
import sys
from pathlib import Path
from cvgl_ray.storage.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_holds_is_refused_until_it_ends(tmp_path):
    output = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(InputError, match=r"another run is writing to .*run; wait for it"),
                run_folder.locked(output),
            ):
                pass
        finally:
            holder.kill()
    with run_folder.locked(output):  # a run that was killed leaves no lock behind
        pass


def test_a_lock_ends_with_its_block_even_on_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), run_folder.locked(tmp_path / "a" / "b"):
            raise KeyError


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(InputError, match=r"cannot be written .*; choose another"),
            run_folder.locked(output),
        ):
            pass


def test_the_run_file_says_what_was_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cvgl-ray", "train"])
    config = load_config(None, ("mstep.rounds=7",))
    run_folder.claim(tmp_path, config)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["config"]["mstep"]["rounds"] == 7
    assert "labels_read" not in found  # what a run has read is known at its end
    assert found["command"] == ["cvgl-ray", "train"]
    assert found["versions"]["cvgl-ray"] == __version__
    assert found["versions"]["torch"]


def test_a_machine_without_git_or_an_installed_package_can_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run_folder, "_PACKAGES", ("no-such-package",))
    run_folder.claim(tmp_path, load_config(None))
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["revision"], found["versions"]) == (None, {"no-such-package": None})


def test_the_same_configuration_goes_on_with_other_resources(tmp_path):
    run_folder.claim(tmp_path, load_config(None, ("run.seed=3", "backbone.layers=[1, 2]")))
    before = (tmp_path / "run.json").read_bytes()
    resources = (
        "run.workers=4",
        "run.gpu=true",
        "run.max_failures=0",
        "features.actors=2",
        "features.cache=/c",
    )
    run_folder.claim(tmp_path, load_config(None, ("run.seed=3", "backbone.layers=[1, 2]", *resources)))
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mstep.rounds=9", r"mstep\.rounds was 3, now 9"),
        ("run.seed=1", r"run\.seed was 0, now 1"),
        (
            "pretransform.query.crops=[0.5]",
            r"pretransform\.query\.crops was \(0\.85, 0\.7, 0\.55\), now \(0\.5,\)",
        ),
        ("dataset.root=/other", r"dataset\.root was '', now '/other'"),
        ("features.table=t.parquet", r"features\.table was '', now 't\.parquet'"),
    ],
)
def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path, override, message):
    run_folder.claim(tmp_path, load_config(None))
    with pytest.raises(InputError, match=rf"{message}\); choose another --output"):
        run_folder.claim(tmp_path, load_config(None, (override,)))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"config": {"mstep": {"epochs": 3}}}'])
def test_a_run_file_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json cannot be read; remove the folder or choose another"):
        run_folder.claim(tmp_path, load_config(None))
    assert (tmp_path / "run.json").read_text() == content
