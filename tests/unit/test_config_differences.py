"""What may be changed of a bundle, and how the rest is refused: by key, before anything starts."""

from pathlib import Path

import pytest

from cvgl_ray.config import load_config
from cvgl_ray.config.differences import load_on_bundle
from cvgl_ray.errors import InputError

BUNDLE = Path("runs/b")


def test_a_bundle_without_changes_keeps_its_configuration_but_for_the_machines():
    trained = load_config(None, ("adapter.rank=3", "run.gpu=true", "run.workers=4", "features.cache=/none"))
    config = load_on_bundle(trained, BUNDLE)
    assert (config.adapter, config.backbone) == (trained.adapter, trained.backbone)
    assert (config.run.gpu, config.run.workers, config.features.cache) == (False, 1, "")


def test_auto_keeps_what_the_training_found(tmp_path):
    found = (
        "pretransform.query.crops=[0.8]",
        "pretransform.query.orientations=2",
        "pretransform.query.heading=90",
    )
    trained = load_config(None, found)
    path = tmp_path / "c.toml"
    path.write_text('[pretransform.query]\ncrops = "auto"\norientations = "auto"\nheading = 0.0\n')
    assert load_on_bundle(trained, BUNDLE, path).pretransform == trained.pretransform


def test_where_things_lie_and_how_retrieval_compares_may_change(tmp_path):
    trained = load_config(None, ("backbone.checkpoint=/there", "dataset.root=/there"))
    path = tmp_path / "c.toml"
    path.write_text('[dataset]\nroot = "/here"\n')
    changes = ("backbone.checkpoint=/here", "retrieval.scores=cosine", "run.gpu=true", "features.cache=/c")
    config = load_on_bundle(trained, BUNDLE, path, changes)
    assert (config.dataset.root, config.backbone.checkpoint, config.retrieval.scores, config.run.gpu) == (
        "/here",
        "/here",
        "cosine",
        True,
    )


@pytest.mark.parametrize(
    ("made", "change", "message"),
    [
        ((), "backbone.pooling=max", r"backbone\.pooling was 'mean', now 'max'"),
        ((), "backbone.precision=bfloat16", r"backbone\.precision was 'float32', now 'bfloat16'"),
        ((), "pretransform.query.crops=[1.0]", r"pretransform\.query\.crops was "),
        ((), "alignment.bands=2", r"alignment\.bands was 4, now 2"),
        ((), "estep.scores=cosine", r"estep\.scores was 'csls', now 'cosine'"),
        ((), "dataset.query_view=street", r"dataset\.query_view was 'drone', now 'street'"),
        ((), "features.table=t.parquet", r"features\.of was 'images', now 'a table'"),
        (("features.table=t.parquet",), "features.table=", r"features\.of was 'a table', now 'images'"),
        (("backbone.pretrained=false",), "backbone.seed=1", r"backbone\.seed was 0, now 1"),
    ],
)
def test_what_made_the_bundle_may_not(made, change, message):
    with pytest.raises(InputError, match=rf"bundle runs/b was made with another configuration \({message}"):
        load_on_bundle(load_config(None, made), BUNDLE, overrides=(change,))
