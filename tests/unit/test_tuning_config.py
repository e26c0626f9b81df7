"""The space of a sweep: what a file gives, what is drawn from it, and how each mistake is named."""

import json

import pytest

from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import candidates, feature_key, swept_values
from cvgl_ray.tuning.config import load_sweep


def drawn(*overrides: str) -> list[dict]:
    return swept_values(candidates(load_sweep(None, overrides)))


def test_a_key_may_be_written_dotted_quoted_or_nested(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        "[mstep]\nrounds = 5\n[tune]\ntrials = 3\n[tune.space]\n"
        '"adapter.rank" = {choice = [7]}\nadapter.shrinkage = {uniform = [0.2, 0.3]}\n'
        "[tune.space.estep]\nneighbours = {grid = [3, 4]}\n"
    )
    sweep = load_sweep(path, ("tune.trials=4", "mstep.rounds=6"))
    assert list(sweep.tune.space) == ["adapter.rank", "adapter.shrinkage", "estep.neighbours"]
    assert (sweep.tune.trials, sweep.base.mstep.rounds) == (4, 6)
    assert load_config(path).mstep.rounds == 5  # the sweep's base, for every other command


def test_draws_keep_to_their_bounds_and_types():
    rows = drawn(
        "tune.trials=50",
        "tune.space.adapter.rank={loguniform=[8, 64]}",
        "tune.space.adapter.shrinkage={uniform=[0.2, 0.8]}",
        "tune.space.mstep.temperature={loguniform=[0.01, 1]}",
        'tune.space.estep.scores={choice=["csls", "cosine"]}',
    )
    assert len(rows) == 50
    assert all(isinstance(row["adapter.rank"], int) and 8 <= row["adapter.rank"] <= 64 for row in rows)
    assert all(0.2 <= row["adapter.shrinkage"] <= 0.8 for row in rows)
    temperatures = sorted(row["mstep.temperature"] for row in rows)
    assert 0.01 <= temperatures[0] < 0.05 < temperatures[25] < 0.2 < temperatures[-1] <= 1  # median near 0.1
    assert {row["estep.scores"] for row in rows} == {"csls", "cosine"}


def test_more_trials_extend_a_sweep_and_another_seed_is_another_sweep():
    space = "tune.space.adapter.shrinkage={uniform=[0.2, 0.8]}"
    few = drawn(space, "tune.trials=3")
    assert drawn(space, "tune.trials=6")[:3] == few
    assert drawn(space, "tune.trials=3", "tune.seed=1") != few


def test_grids_are_crossed_and_equal_candidates_are_tried_once():
    rows = drawn("tune.space.estep.neighbours={grid=[3, 4, 5]}", "tune.space.adapter.rank={grid=[8, 16]}")
    assert len(rows) == 6
    assert {tuple(row.values()) for row in rows} == {(n, r) for n in (3, 4, 5) for r in (8, 16)}


def test_a_choice_of_tables_changes_their_keys_alone():
    rows = drawn(
        "adapter.rank=99",
        'tune.space.adapter={grid=[{kind="linear", width=16}, {shrinkage=0.25}]}',
        "tune.space.pretransform={grid=[{query={crops=[0.5]}}]}",
        "pretransform.query.orientations=4",
    )
    assert [(row["adapter.kind"], row["adapter.width"], row["adapter.shrinkage"]) for row in rows] == [
        ("linear", 16, 0.5),
        ("attenuation", 0, 0.25),
    ]
    sweep = load_sweep(None, ("tune.space.pretransform={choice=[{query={crops=[0.5]}}]}",))
    assert json.loads(feature_key(candidates(sweep)[0].config))["pretransform"]["query"]["crops"] == [0.5]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.trials=3", "'tune': space is empty; name at least one key"),
        ("tune.trails=3", "unknown key 'tune.trails' .*valid keys here are: trials, concurrency, scheduler"),
        ("tune.scheduler=best", "'tune.scheduler' is \"best\": input should be 'asha'"),
        ("tune.space.adapter.rank=3", "'adapter.rank' is 3: give a distribution, as in"),
        ("tune.space.adapter.rank={uniform=3}", "'adapter.rank' is .*: give one of uniform, loguniform"),
        (
            "tune.space.adapter.rank={uniform=[9, 3]}",
            r"uniform is \[9, 3\]: give two finite numbers, the lower",
        ),
        ("tune.space.adapter.rank={loguniform=[0, 3]}", "two finite numbers above 0"),
        ("tune.space.adapter.rank={choice=[]}", "'tune.space.adapter.rank.values' is .*at least 1 item"),
        ("tune.space.dataset.root={choice=['a', 'b']}", "has 'dataset.root', but only run.seed and keys of"),
        (
            "tune.space.backbone.gem_power={uniform=[2, 4]}",
            "an extraction of its own; give a choice or a grid",
        ),
        (
            "tune.space.adapter.rank={grid=" + str(list(range(1, 30))) + "}",
            "grids have 29 combinations; trials",
        ),
        ("tune.space.adapter.rnak={choice=[3]}", r"candidate, .*: unknown key 'adapter.rnak' .*rank"),
        ("tune.space.adapter.rank.x={choice=[3]}", "impossible candidate, .*'adapter.rank' is"),
        ("tune.space.adapter.kind={uniform=[0, 1]}", "impossible candidate, .*'adapter.kind' is 0"),
        ("tune.space.adapter={choice=[{width=4}]}", 'impossible candidate, .*width needs kind = "linear"'),
    ],
)
def test_a_space_that_cannot_be_swept_is_refused_in_one_sentence(override, message):
    with pytest.raises(InputError, match=message) as caught:
        candidates(load_sweep(None, (override,)))
    assert "\n" not in str(caught.value)


def test_a_sweep_without_a_score_is_refused():
    overrides = ("run.agreement=false", "tune.space.adapter.rank={choice=[8]}")
    with pytest.raises(InputError, match=r"run\.agreement is false"):
        candidates(load_sweep(None, overrides))


def test_features_of_others_are_not_swept():
    overrides = ("features.table=x.parquet", "tune.space.backbone.gem_power={choice=[2.0, 4.0]}")
    with pytest.raises(InputError, match=r"features\.table replaces the extraction"):
        candidates(load_sweep(None, overrides))
