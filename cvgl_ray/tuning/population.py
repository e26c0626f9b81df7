"""What population based training may change of a trial that goes on, and what it has changed of each."""

from collections.abc import Mapping
from typing import Any

from cvgl_ray.config import EStep, Loss
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import Candidate, leaves, vary
from cvgl_ray.tuning.config import Sweep

# Keys that a learner obeys from any round on, whatever its state went through. Left out is what the features
# or the shapes of the state depend on, what counts at the start alone (adapter.init, run.seed), and what the
# schedule of the learning rate counts by (mstep.rounds, steps_per_round, warmup_steps).
CHANGEABLE = (
    "adapter.siblings",
    "adapter.shrinkage",
    *(f"estep.{key}" for key in EStep.model_fields),
    *(
        f"mstep.{key}"
        for key in ("batch_size", "learning_rate", "clip_value", "temperature", "label_smoothing")
    ),
    *(f"loss.{key}" for key in Loss.model_fields),
)


def check_population(sweep: Sweep) -> None:
    """Refuse a sweep by pbt whose space or interval does not let a trial take over a state and go on."""
    rounds, interval = sweep.base.mstep.rounds, sweep.tune.interval_rounds
    if interval >= rounds:
        raise InputError(
            f"tune.interval_rounds is {interval}, but mstep.rounds is {rounds}; give an interval below that, "
            "so that rounds are left after an exchange"
        )
    drawn = [{key: value} for key, d in sweep.tune.space.items() for value in d.values]
    for key, value in (leaf for tree in drawn for leaf in leaves(tree)):
        if key not in CHANGEABLE:
            raise InputError(
                f"tune.space has {key!r}, but pbt changes keys between a trial's rounds and "
                f"can change only {', '.join(CHANGEABLE)}"
            )
        if key == "mstep.temperature" and sweep.base.mstep.learn_temperature:
            raise InputError(
                f'tune.space has {key!r}, but with scheduler = "pbt" a learned temperature comes with the '
                "state taken over; set mstep.learn_temperature = false, or leave it out"
            )
        if key == "loss.reconstruction_weight" and not value:
            raise InputError(
                f"tune.space has 0 for {key!r}, where the optimiser has no state of the decoder to hand on; "
                'with scheduler = "pbt" give values above 0'
            )


def in_force(
    sweep: Sweep, found: Mapping[int, Candidate], taken: Mapping[int, dict[str, Any] | None]
) -> dict[int, Candidate]:
    """The candidates as takeovers left them; taken: by number the values since then, None without one.

    A model that is kept from a round before the last takeover was learned with values of before, which the
    journal has.
    """
    return {
        number: Candidate(number, values, vary(sweep.base, values))
        if (values := taken.get(number))
        else candidate
        for number, candidate in found.items()
    }
