"""The configuration: what a file and `--set` give, and how each mistake is named."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from cvgl_ray.config import Config, load_config
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import candidates
from cvgl_ray.tuning.config import load_sweep

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


STRIPS = ("pretransform.query.projection=panorama", "pretransform.reference.projection=polar")


def test_no_file_gives_the_defaults():
    assert load_config(None) == Config()
    assert Config().backbone.name == "vit_base_patch14_dinov2.lvd142m"


def test_the_defaults_are_the_recommended_values_and_a_key_changes_no_other():
    backbone, views = Config().backbone, load_config(None, ("pretransform.query.flip=true",)).pretransform
    assert (backbone.image_size, backbone.crop_fraction, backbone.layers) == (224, 1.0, (-2, "final"))
    assert (backbone.pooling, backbone.rings) == ("mean", (0.25, 0.5, 0.7, 0.9, 1.1, 1.5))
    for view in (views.query, views.reference):
        assert (view.orientations, view.crops, view.heading) == ("auto", "auto", 0.0)


def test_strips_have_defaults_of_their_own_which_a_key_overrides():
    config = load_config(None, STRIPS)
    assert (config.backbone.image_size, config.backbone.rings) == ((224, 896), ())
    for view in (config.pretransform.query, config.pretransform.reference):
        assert (view.orientations, view.crops) == (1, (1.0,))
    config = load_config(
        None, (*STRIPS, "backbone.image_size=[64, 256]", "pretransform.query.orientations=8")
    )
    assert (config.backbone.image_size, config.pretransform.query.orientations) == ((64, 256), 8)
    narrow = load_config(None, (*STRIPS, "pretransform.query.field_of_view=10", "alignment.use=no"))
    assert narrow.pretransform.query.field_of_view == 10


@pytest.mark.parametrize("kind", ["attenuation", "linear"])
def test_the_resolved_configuration_reads_back_the_same(kind):
    overrides = (f"adapter.kind={kind}", "backbone.layers=[1, 2]", *STRIPS)
    config = load_config(None, overrides)
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        '[dataset]\nroot = "/é"\n[mstep]\nrounds = 3\nbatch_size = 8\n[pretransform.query]\nflip = true\n'
    )
    config = load_config(path, ("mstep.rounds=4", "mstep.rounds=5", "pretransform.query.orientations=8"))
    assert (config.mstep.rounds, config.mstep.batch_size) == (5, 8)
    assert config.dataset.root == "/é"
    assert (config.pretransform.query.flip, config.pretransform.query.orientations) == (True, 8)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("dataset.root=/data/x y", "/data/x y"),
        ("dataset.root=s3://bucket/a=b#c", "s3://bucket/a=b#c"),
        ('dataset.root="2024"', "2024"),
        ("dataset.root=", ""),
        (" dataset.root=a", "a"),
        ('dataset.distractors=["a", "b"]', ("a", "b")),
        ('backbone.layers=[1, -1, "final"]', (1, -1, "final")),
        ("mstep.learning_rate=1e-3", 1e-3),
        ("backbone.image_size=64", 64),
        ("run.gpu=true", True),
    ],
)
def test_override_values_are_toml_or_text(override, value):
    section, key = override.split("=")[0].strip().split(".")
    assert getattr(getattr(load_config(None, (override,)), section), key) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "foo.bar=1",
            "unknown key 'foo' in the configuration; valid keys here are: dataset, backbone, .*run",
        ),
        ("mstep.roundz=3", "unknown key 'mstep.roundz' .*valid keys here are: rounds, steps_per_round, "),
        ("mstep.roundz=3", r"\(did you mean 'mstep\.rounds'\?\)"),
        ("adapter.rounds=3", r"\(did you mean 'mstep\.rounds'\?\)"),
        ("dataset.layout=folder", "'folders', .* .did you mean 'folders'.."),
        ("dataset.layout=university_1652", r"\(did you mean 'university1652'\?\)"),
        ("adapter.kind=MLP", "should be 'attenuation' or 'linear'$"),
        (
            "backbone.layers=[-2, final]",
            """no TOML: put words in double quotes .*'backbone.layers=\\[-2, "final"\\]'""",
        ),
        (
            "pretransform.query.turn=1",
            "unknown key 'pretransform.query.turn' .*: projection, orientations, heading, crops",
        ),
        ("mstep.rounds=five", "'mstep.rounds' is \"five\": input should be a valid integer"),
        ("mstep.rounds=1.5", "'mstep.rounds' is 1.5: input should be a valid integer"),
        ("mstep.rounds=0", "'mstep.rounds' is 0: input should be greater than or equal to 1"),
        ("mstep.rounds=2024-01-01", "'mstep.rounds' is \"2024-01-01\": input should be a valid integer"),
        ("mstep.learning_rate=nan", "'mstep.learning_rate' is NaN"),
        ("mstep.learning_rate=inf", "'mstep.learning_rate' is Infinity: input should be a finite number"),
        ("run.gpu=maybe", "'run.gpu' is \"maybe\": input should be a valid boolean"),
        ("run.seed=-1", "'run.seed' is -1: input should be greater than or equal to 0"),
        ("dataset.root=2024", "'dataset.root' is 2024: input should be a valid string"),
        ("backbone.pooling=avg", "'backbone.pooling' is \"avg\": input should be 'gem', 'gem_signed', "),
        ("backbone.layers=3", "'backbone.layers' is 3: input should be a valid list"),
        (
            'backbone.layers=["last"]',
            "'backbone.layers.0': 'last' is neither \"final\" nor the index of a block",
        ),
        ("backbone.layers=[1, 2.0]", "'backbone.layers.1': 2.0 is neither"),
        ("backbone.image_size=-1", "'backbone.image_size': -1 is neither a square's side nor a strip's"),
        ("backbone.image_size=[64]", r"'backbone.image_size': \[64\] is neither"),
        ("backbone.image_size=[64, 0]", r"'backbone.image_size': \[64, 0\] is neither"),
        ("pretransform.query.orientations=3", "is 3: input should be 'auto', 1, 2, 4 or 8"),
        (
            "pretransform.query.crops=[0.5, 1.5]",
            r"'pretransform.query.crops': \[0.5, 1.5\] is neither \"auto\" nor a list of shares",
        ),
        (
            "pretransform.query.crops=[]",
            r"'pretransform.query.crops': \[\] is neither",
        ),
        (
            "pretransform.query=3",
            "'pretransform.query' is 3: it is a section; its keys are: projection, orientations, heading",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(None, (override,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["mstep", "rounds=3", ".rounds=3", "mstep.=3", "=3", ""])
def test_an_override_of_another_form_is_refused(override):
    with pytest.raises(InputError, match=r"is not of the form section\.key=value"):
        load_config(None, (override,))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.query_view=satellite"], "'dataset': query_view and reference_view are both 'satellite'"),
        (["run.workers=2", "run.min_workers=3"], "min_workers is 3, more than workers, which is 2"),
        (["backbone.layers=[]"], "'backbone': layers is empty"),
        (["backbone.facet=value"], "facet 'value' needs a block index in layers, found \"final\""),
        (["backbone.rings=[1.0, 0.5]"], r"rings \[1\.0, 0\.5\] must rise"),
        (["backbone.rings=[0.5, 0.5]"], "must rise"),
        (["backbone.rings=[0.5]", "backbone.pooling=cls"], "need a pooling of patches, not 'cls'"),
        (
            ["adapter.kind=linear", "adapter.residual=true", "adapter.width=64"],
            "residual needs width = 0 .*found width 64",
        ),
        (["adapter.width=64"], 'width needs kind = "linear", found kind "attenuation"'),
        (["adapter.residual=true", "adapter.init=random"], 'init, residual needs kind = "linear"'),
        (["adapter.norm=batch"], 'norm "batch" needs kind = "linear"'),
        (["estep.rows=5"], "neighbourhood needs all rows: rows = 0, or neighbourhood = 0"),
        (
            [*STRIPS, "pretransform.query.crops=[0.5]"],
            r"'pretransform\.query': a panorama is taken whole, crops = \[1\.0\], found \[0\.5\]",
        ),
        (
            [*STRIPS, "pretransform.reference.projection=plane"],
            r"\['panorama', 'plane'\] and image_size \(224, 896\)",
        ),
        ([*STRIPS, "backbone.image_size=64"], "'polar'.* and image_size 64"),
        (["backbone.image_size=[64, 256]"], r"'plane'\] and image_size \(64, 256\)"),
        ([*STRIPS, "backbone.rings=[0.5]"], r"configuration: rings .*set backbone\.rings = \[\]"),
        ([*STRIPS, "backbone.crop_fraction=0.9"], r"crop_fraction need projection \"plane\""),
        (
            [*STRIPS, "pretransform.query.field_of_view=0.01", "alignment.use=no"],
            r"query\.field_of_view is 0\.01 degrees of a strip: give 10 to 360",
        ),
        ([*STRIPS, "pretransform.query.field_of_view=25"], "fewer than 4 of the alignment.headings = 56"),
        ([*STRIPS, "alignment.headings=1"], "alignment.headings is 1, and strips need 3 sectors or more"),
        (
            [
                *STRIPS,
                "pretransform.reference.projection=panorama",
                "pretransform.reference.field_of_view=90",
            ],
            r"reference\.field_of_view is 90 degrees, and strips are aligned with .* the whole circle",
        ),
    ],
)
def test_an_impossible_combination_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(None, tuple(overrides))


def test_a_file_and_overrides_change_a_base(tmp_path):
    base = load_config(None, ("adapter.kind=linear", "adapter.width=64", "backbone.layers=[1]", *STRIPS))
    assert load_config(base=base) == base
    path = tmp_path / "run.toml"
    path.write_text("[adapter]\nwidth = 32\n")
    changed = load_config(path, ("backbone.checkpoint=/c",), base)
    assert (changed.adapter.kind, changed.adapter.width) == ("linear", 32)
    assert changed.backbone == base.backbone.model_copy(update={"checkpoint": "/c"})


def test_a_section_given_as_a_value_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('dataset = "/data"')
    with pytest.raises(
        InputError, match="'dataset' is \"/data\": it is a section; its keys are: layout, root"
    ):
        load_config(path)
    with pytest.raises(InputError, match="goes into 'dataset', which is a value and not a section"):
        load_config(path, ("dataset.root=x",))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    bad = tmp_path / "bad.toml"
    for content, message in ((b"[mstep\n", "is not valid TOML: .*line 1"), (b"a = '\xff'", "cannot be read")):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            load_config(bad)
        assert "\n" not in str(caught.value)
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .*; give a TOML file"):
            load_config(path)


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().run.seed = 1


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_loads(path):
    text = path.read_text(encoding="utf-8")
    tree = tomllib.loads(text)
    if "parts" in tree:
        base = path.parents[1] / re.search(r"--config (experiments/\S+)", text)[1]  # that its head names
        parts = tree["parts"] | {"true-labels": []}
        for items in [*tree.get("configurations", {}).values(), *([name] for name in parts)]:
            chosen = itertools.chain(*([item] if "=" in item else parts[item] for item in items))
            load_config(base, tuple(chosen))
    else:
        load_config(path)
    if "tune" in tree:
        assert len(candidates(load_sweep(path))) == tree["tune"]["trials"]
