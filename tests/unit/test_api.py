"""The Python API on arrays: what README shows runs as it stands, and what does not fit is named."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_rooms import ROOMS

import cvgl_ray

README = Path(__file__).parents[2] / "README.md"
QUICK = cvgl_ray.load_config(None, ("mstep.rounds=1", "run.agreement=false"))


def views(count=60, dimension=32, noise=0.3):
    rng = np.random.default_rng(0)
    places = rng.normal(size=(count, dimension))
    return tuple(places + shift + noise * rng.normal(size=places.shape) for shift in (0.0, 1.0))


@pytest.fixture(scope="module")
def model():
    return cvgl_ray.fit(*views())


def test_what_readme_shows_runs_as_it_stands(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    shown = [block for block in blocks if "cvgl_ray.fit" in block]
    if not shown:
        pytest.skip("README shows no Python yet")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(shown[0], names)
    assert names["model"].scores["score"] > 0.5


def test_a_model_finds_what_belongs_together_and_says_how_sure_it_is(model):
    queries, references = views()
    indices, scores = model.search(queries, references, k=3)
    assert (indices.shape, scores.shape, indices.dtype, scores.dtype) == (
        (60, 3),
        (60, 3),
        np.int64,
        np.float32,
    )
    assert (indices[:, 0] == np.arange(60)).mean() > 0.95
    assert (np.diff(scores) <= 0).all()
    assert 0.9 < model.scores["score"] <= 1
    assert {(query, reference) for query, reference, _ in model.pseudo_labels} >= {(0, 0), (59, 59)}
    z = model.embed(queries, "query")
    assert z.shape == (60, 32)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float64, torch.float32, torch.bfloat16])
def test_any_float_will_do(kind):
    sides = views()
    if isinstance(kind, torch.dtype):
        sides = [torch.from_numpy(side).to(kind).requires_grad_() for side in sides]
    else:
        sides = [side.astype(kind) for side in sides]
    other = cvgl_ray.fit(*sides, QUICK)
    indices, _ = other.search(*sides, k=1)
    assert (indices[:, 0] == np.arange(60)).mean() > 0.95


def test_a_saved_model_is_the_same_and_the_command_line_reads_it(model, tmp_path):
    model.save(str(tmp_path / "m"))
    again = cvgl_ray.load(tmp_path / "m")
    queries, references = views()
    for one, other in zip(model.search(queries, references), again.search(queries, references), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.scores == model.scores
    assert [pair[:2] for pair in again.pseudo_labels] == [pair[:2] for pair in model.pseudo_labels]


def test_evaluation_takes_the_labels_and_knows_what_was_trained_on(model):
    queries, references = views()
    places = [str(number) for number in range(60)]
    report = cvgl_ray.evaluate(model, queries, references, places, places)
    assert report["adapted"]["query->reference"]["R@1"] > 95
    assert report["adapted"]["reference->query"]["R@1"] > 95
    assert report["frozen"].keys() == report["adapted"].keys()
    assert report["trained_on_test_images"] is True
    unseen = cvgl_ray.evaluate(model, queries + 0.1, references + 0.1, places, places)
    assert unseen["trained_on_test_images"] is False
    frozen = cvgl_ray.evaluate(None, queries, references, places, places)
    assert frozen == {"frozen": report["frozen"]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, q, r: cvgl_ray.fit(q, r[:, :5]), "queries has 32 columns and references 5"),
        (lambda m, q, r: cvgl_ray.fit(q[:0], r), r"queries has shape \[0, 32\]"),
        (lambda m, q, r: cvgl_ray.fit(q, r[0]), r"references has shape \[32\]"),
        (lambda m, q, r: cvgl_ray.fit(q, r * np.nan), "references has 60 of 60 rows with NaN"),
        (lambda m, q, r: cvgl_ray.fit([["a"]], r), "queries holds <U1"),
        (lambda m, q, r: m.search(q[:, :5], r, 1), "queries has 5 columns, but the model was trained on"),
        (lambda m, q, r: m.search(q, r[:0], 1), r"references has shape \[0, 32\]"),
        (lambda m, q, r: m.search(q, r, 61), "k = 61 was asked of a gallery of 60"),
        (lambda m, q, r: m.embed(q, "drone"), 'view is \'drone\'; give "query" or "reference"'),
        (lambda m, q, r: m.embed(q[0], "query"), r"rows has shape \[32\]"),
        (lambda m, q, r: cvgl_ray.evaluate(m, q, r, ["a"], ["b"] * 60), "queries has 60 rows, and 1 places"),
        (lambda m, q, r: cvgl_ray.load("nowhere"), "nowhere is no bundle"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(model, call, message):
    with pytest.raises(cvgl_ray.InputError, match=message) as error:
        call(model, *views())
    assert "\n" not in str(error.value)


def test_the_package_alone_imports_nothing():
    code = "import sys, cvgl_ray; assert not {'torch', 'numpy', 'pydantic', 'ray'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_names_come_from_rooms_that_cannot_import_ray():
    for name in cvgl_ray.__all__:
        room = getattr(cvgl_ray, name).__module__.split(".")[1]
        assert ROOMS.index(room) < ROOMS.index("distributed")  # see test_rooms.py
    assert "fit" in dir(cvgl_ray)
    assert not hasattr(cvgl_ray, "nothing")


def test_the_package_says_that_it_is_typed():
    assert (Path(cvgl_ray.__file__).parent / "py.typed").exists()
