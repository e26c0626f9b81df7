"""What a population may exchange: keys that a learner obeys from any round on, and no others."""

import pytest

from cvgl_ray.config import Config
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import candidates, swept_values
from cvgl_ray.tuning.config import load_sweep
from cvgl_ray.tuning.population import CHANGEABLE, check_population, in_force

SHRINKAGE = "tune.space.adapter.shrinkage={uniform=[0.1, 0.9]}"


def checked(*overrides):
    check_population(load_sweep(None, ("tune.scheduler=pbt", *overrides)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.space.adapter.rank={choice=[8, 16]}", "'adapter.rank', but .* can change only adapter.sib"),
        ("tune.space.adapter={choice=[{shrinkage=0.2}, {kind='linear'}]}", "'adapter.kind', but"),
        ("tune.space.pretransform.query.crops={grid=[[1.0], [0.8]]}", "'pretransform.query.crops', but"),
        ("tune.space.backbone.gem_power={choice=[2.0, 4.0]}", "'backbone.gem_power', but"),
        ("tune.space.mstep.rounds={choice=[3, 4]}", "'mstep.rounds', but"),
        ("tune.space.mstep.optimizer={choice=['adam', 'adamw']}", "'mstep.optimizer', but"),
        ("tune.space.mstep.steps_per_round={choice=[5, 10]}", "'mstep.steps_per_round', but"),
        ("tune.space.run.seed={grid=[0, 1]}", "'run.seed', but"),
        ("tune.space.mstep.temperature={uniform=[0.01, 0.1]}", "set mstep.learn_temperature = false"),
        ("tune.space.loss.reconstruction_weight={uniform=[0.0, 1.0]}", "give values above 0"),
        ("tune.interval_rounds=3", "tune.interval_rounds is 3, but mstep.rounds is 3; .* below that"),
    ],
)
def test_what_a_trial_that_goes_on_cannot_change_is_refused_in_one_sentence(override, message):
    with pytest.raises(InputError, match=message) as caught:
        checked(SHRINKAGE, override)
    assert "\n" not in str(caught.value)


def test_the_rest_is_let_through():
    checked(
        SHRINKAGE,
        "mstep.learn_temperature=false",
        "tune.space.mstep.temperature={loguniform=[0.01, 0.1]}",
        "tune.space.estep={choice=[{scores='csls'}, {scores='cosine', neighbourhood=0.0}]}",
        "tune.space.loss.reconstruction_weight={choice=[0.5, 1.0]}",
    )
    tree = Config().model_dump()
    assert all(key in tree[section] for section, key in (name.split(".") for name in CHANGEABLE))


def test_a_taken_over_trial_shows_the_values_in_force():
    sweep = load_sweep(None, ("tune.trials=3", SHRINKAGE))
    found = {candidate.number: candidate for candidate in candidates(sweep)}
    now = in_force(sweep, found, {0: None, 1: {"adapter.shrinkage": 0.25}})
    assert [now[0], now[2]] == [found[0], found[2]]
    assert now[1].config.adapter.shrinkage == 0.25
    assert swept_values(list(now.values()))[1] == {"adapter.shrinkage": 0.25}
