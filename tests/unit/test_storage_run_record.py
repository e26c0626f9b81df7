"""run.json: what was run, and that a folder keeps to one configuration of what its commands read."""

import json
import sys

import pytest

from cvgl_ray import __version__
from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.storage import run_record
from cvgl_ray.storage.run_record import claim, stage_of


def test_the_run_file_says_what_was_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cvgl-ray", "train"])
    config = load_config(None, ("mstep.rounds=7",))
    claim(tmp_path, "train", config)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["config"]["mstep"]["rounds"] == 7
    assert found["stage"] == "train"
    assert found["command"] == ["cvgl-ray", "train"]
    assert found["versions"]["cvgl-ray"] == __version__
    assert found["versions"]["torch"]


def test_a_machine_without_git_or_an_installed_package_can_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run_record, "_PACKAGES", ("no-such-package",))
    claim(tmp_path, "train", load_config(None))
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["revision"], found["versions"]) == (None, {"no-such-package": None})


def test_the_same_configuration_goes_on_with_other_resources(tmp_path):
    claim(tmp_path, "train", load_config(None, ("run.seed=3", "backbone.layers=[1, 2]")))
    before = (tmp_path / "run.json").read_bytes()
    resources = (
        "run.workers=4",
        "run.gpu=true",
        "run.max_failures=0",
        "features.actors=2",
        "features.cache=/c",
        "backbone.checkpoint=/elsewhere",
    )
    claim(tmp_path, "train", load_config(None, ("run.seed=3", "backbone.layers=[1, 2]", *resources)))
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mstep.rounds=9", r"mstep\.rounds was 3, now 9"),
        ("run.seed=1", r"run\.seed was 0, now 1"),
        (
            "pretransform.query.crops=[0.5]",
            r"pretransform\.query\.crops was 'auto', now \(0\.5,\)",
        ),
        ("dataset.root=/other", r"dataset\.root was '', now '/other'"),
        ("features.table=t.parquet", r"features\.table was '', now 't\.parquet'"),
    ],
)
def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path, override, message):
    claim(tmp_path, "train", load_config(None))
    with pytest.raises(InputError, match=rf"{message}\); choose another --output"):
        claim(tmp_path, "train", load_config(None, (override,)))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"config": {"mstep": {"epochs": 3}}}'])
def test_a_run_file_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json cannot be read; remove the folder or choose another"):
        claim(tmp_path, "train", load_config(None))
    assert (tmp_path / "run.json").read_text() == content


def test_an_extraction_claims_the_data_set_alone_and_any_training_may_follow(tmp_path):
    claim(tmp_path, "extract", load_config(None, ("dataset.root=/a",)))
    claim(tmp_path, "extract", load_config(None, ("dataset.root=/a", "backbone.pooling=max")))
    with pytest.raises(InputError, match=r"dataset\.root was '/a', now '/b'"):
        claim(tmp_path, "extract", load_config(None, ("dataset.root=/b",)))
    assert "adapter" not in json.loads((tmp_path / "run.json").read_text())["config"]
    claim(tmp_path, "train", load_config(None, ("dataset.root=/a", "adapter.rank=3")))
    assert stage_of(tmp_path) == "train"
    claim(tmp_path, "extract", load_config(None, ("dataset.root=/a", "backbone.pooling=max")))
    assert stage_of(tmp_path) == "train"  # whose record stays
    with pytest.raises(InputError, match=r"adapter\.rank was 3, now 4"):
        claim(tmp_path, "train", load_config(None, ("dataset.root=/a", "adapter.rank=4")))


def test_an_evaluation_claims_what_it_reads_and_its_bundle(tmp_path):
    claim(tmp_path, "evaluate", load_config(None), {"bundle": "1"})
    claim(tmp_path, "evaluate", load_config(None, ("adapter.rank=3",)), {"bundle": "1"})
    with pytest.raises(InputError, match=r"retrieval\.scores was 'csls', now 'cosine'"):
        claim(tmp_path, "evaluate", load_config(None, ("retrieval.scores=cosine",)), {"bundle": "1"})
    with pytest.raises(InputError, match="bundle was '1', now '2'"):
        claim(tmp_path, "evaluate", load_config(None), {"bundle": "2"})
    with pytest.raises(
        InputError, match="was made by `cvgl-ray evaluate`; choose another --output for `train`"
    ):
        claim(tmp_path, "train", load_config(None))


def test_weights_may_lie_elsewhere_but_are_the_same_ones(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    given = {name: load_config(None, (f"backbone.checkpoint={tmp_path / name}",)) for name in "abc"}
    claim(tmp_path, "train", given["a"])
    claim(tmp_path, "train", given["b"])
    with pytest.raises(InputError, match=r"backbone\.checkpoint was '.*', now '"):
        claim(tmp_path, "train", given["c"])
    (tmp_path / "a").unlink()
    claim(tmp_path, "train", given["a"])


def test_a_run_file_of_before_is_a_trainings(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"config": load_config(None).model_dump(mode="json")}))
    assert stage_of(tmp_path) == "train"
    claim(tmp_path, "train", load_config(None))
