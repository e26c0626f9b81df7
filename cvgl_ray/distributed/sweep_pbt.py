"""Population based training (Jaderberg et al., 2017): trials that lag behind go on from others' states.

Ray's scheduler in its synchronous mode: every `tune.interval_rounds` rounds all trials wait for the last one,
then each of the lowest quarter by score takes over the state of one of the highest, with changed values. A
takeover is in the journal before anything learns from it, so a sweep whose driver died goes on with the
population as it was. Ray's own memory of scores is lost with the driver: trials that wait report once more.
"""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from cvgl_ray.distributed.checkpoints import hand_over
from cvgl_ray.distributed.sweep_journal import ROUNDS, SCORE, Journal, Record, state_folder
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import Candidate, vary
from cvgl_ray.tuning.config import Distribution, Sweep

log = logging.getLogger(__name__)


class Population(PopulationBasedTraining):
    """Ray's scheduler for the trials of one sweep.

    found: the candidates with the values in force; concurrent: trials at a time; states: the folder of the
    trials' checkpoints.
    """

    def __init__(
        self, sweep: Sweep, found: Mapping[int, Candidate], journal: Journal, concurrent: int, states: Path
    ) -> None:
        self.sweep, self.found, self.journal = sweep, found, journal
        self.concurrent, self.states = concurrent, states
        self.exchanged = max((record.taken_at for record in journal.records.values()), default=0)
        interval = sweep.tune.interval_rounds
        super().__init__(
            time_attr=ROUNDS,
            metric=SCORE,
            mode="max",
            perturbation_interval=interval,
            hyperparam_mutations={"values": {key: _mutation(d) for key, d in sweep.tune.space.items()}},
            log_config=False,
            synch=True,
        )
        self._next_perturbation_sync = self.exchanged + interval

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial waits to be chosen: Ray would start all that are pending, however few have room."""
        number = trial.config["number"]
        trial.config["values"] = self.found[number].values
        record = self.journal.records.get(number, Record())
        trial.config["folder"] = state_folder(number, record.taken_at)
        super().on_trial_add(tune_controller, trial)
        trial.set_status(Trial.PAUSED)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pause a trial where an exchange is due; the last one to come sets it off."""
        done = result[ROUNDS]
        last = done >= self.sweep.base.mstep.rounds  # nothing could learn from an exchange
        if last or done <= self.exchanged or done % self.sweep.tune.interval_rounds:
            return TrialScheduler.CONTINUE
        # Ray tells the journal after the scheduler, which needs the report of this round there.
        self.journal.on_trial_result(0, [], trial, result)
        result = result | self.journal.records[trial.config["number"]].reports.get(done, {})
        for other in tune_controller.get_trials():
            if other.status == Trial.ERROR:  # Ray would wait for it
                self._trial_state[other].last_train_time = done
        random.seed(f"{self.sweep.tune.seed} {done}")  # Ray draws from Python's own generator
        return super().on_trial_result(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial that has come least far, while there is room."""
        trials = tune_controller.get_trials()
        busy = sum(trial.status in (Trial.PENDING, Trial.RUNNING) for trial in trials)
        if busy >= self.concurrent:
            return None
        chosen = super().choose_trial_to_run(tune_controller)
        waiting = [trial for trial in trials if trial.status == Trial.PAUSED]
        if chosen is None and waiting and not busy:  # the one that they waited for has failed
            self.on_trial_result(tune_controller, waiting[0], waiting[0].last_result)
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ray's hook for how the configuration of one trial becomes another's: the takeover itself."""
        config, operations = super()._get_new_config(trial, trial_to_clone)
        number, source = trial.config["number"], trial_to_clone.config["number"]
        values = {key: _within(self.sweep.tune.space[key], value) for key, value in config["values"].items()}
        try:
            vary(self.sweep.base, values)
        except InputError:  # values that do not go together
            values = trial_to_clone.config["values"]
        self.exchanged = self.journal.records[source].rounds
        folder = state_folder(number, self.exchanged)
        hand_over(self.states / trial_to_clone.config["folder"], self.states / folder)
        self.journal.take_over(number, source, values)
        return {"number": number, "values": values, "folder": folder}, operations


def _mutation(distribution: Distribution) -> Any:
    """What Ray draws from anew; or else it multiplies by 0.8 or 1.2, or goes to the neighbour in a list."""
    if distribution.kind == "uniform":
        return tune.uniform(*distribution.values)
    if distribution.kind == "loguniform":
        return tune.loguniform(*distribution.values)
    return list(distribution.values)


def _within(distribution: Distribution, value: Any) -> Any:
    """The value, or the bound that Ray's factor has carried it past."""
    if distribution.kind in ("choice", "grid"):
        return value
    lowest, highest = distribution.values
    return type(value)(min(max(value, lowest), highest))
