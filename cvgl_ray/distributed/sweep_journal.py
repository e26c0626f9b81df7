"""What a sweep has seen, one JSON line a report, so that it goes on where its driver died.

Ray Tune's own restoration forgets what its scheduler has seen and unpickles files of the output folder; this
journal is text, and the scheduler is shown the past again.
"""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray import cloudpickle, tune

from cvgl_ray.em.judge import CHOICE
from cvgl_ray.em.learner import keeps_up
from cvgl_ray.errors import InputError, chain
from cvgl_ray.tuning.candidates import trial_name

log = logging.getLogger(__name__)

SCORE = f"labels/{CHOICE}"
ROUNDS = "rounds_done"  # of a report, beside the round's scalars
Ending = Literal["complete", "stopped", "failed"]


@dataclass
class Record:
    """A trial so far: its reports by rounds done (scalars by TensorBoard's names), and how it ended.

    After a takeover the reports up to it are those of the trial whose state was taken.
    """

    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    ended: Ending | None = None
    reason: str = ""  # of a failure
    taken_at: int = 0  # rounds done at the last takeover
    values: dict[str, Any] | None = None  # of the swept keys since then

    @property
    def rounds(self) -> int:
        """Rounds done, 0 before the first report."""
        return max(self.reports, default=0)

    @property
    def score(self) -> float | None:
        """Of the round that `Learner.keep_best` keeps, higher is better; None before the first report."""
        kept, highest = None, -math.inf
        for _, scalars in sorted(self.reports.items()):
            score = float(scalars[SCORE])
            if keeps_up(score, highest):
                kept, highest = score, max(highest, score)
        return kept

    def take(self, line: dict[str, Any], records: Mapping[int, "Record"]) -> None:
        """Add what a line of the journal says; records: of all trials before it."""
        if "scalars" in line:
            self.reports[line["rounds"]] = line["scalars"]
        elif "source" in line:
            self.taken_at, self.values = line["rounds"], line["values"]
            earlier = records[line["source"]].reports.items()
            self.reports = {number: scalars for number, scalars in earlier if number <= self.taken_at}
        else:
            self.ended, self.reason = line["ended"], line["reason"]


def read_journal(path: Path) -> dict[int, Record]:
    """Records by the trials' numbers; a last line that was cut off is passed over."""
    records: dict[int, Record] = {}
    content = path.read_bytes() if path.exists() else b""
    for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(text)
            records.setdefault(line["trial"], Record()).take(line, records)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is no report; remove the folder to start over"
            ) from error
    return records


class Journal(tune.Callback):
    """Appends what Ray Tune's driver learns of its trials, and keeps it in `records`.

    rounds: by trial number, how many rounds a complete trial has.
    """

    def __init__(self, path: Path, rounds: Mapping[int, int]) -> None:
        self.path, self.rounds = path, rounds
        self.records = read_journal(path)
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A round of a trial is done; a trial that goes on may report a round once more."""
        number = trial.config["number"]
        if number in self.records and result[ROUNDS] <= self.records[number].rounds:
            return
        self._append(
            number,
            rounds=result[ROUNDS],
            scalars={name: v for name, v in result.items() if name.split("/")[0] in ("em", "labels", "loss")},
            seconds=round(result["time_total_s"], 2),
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has done all its rounds, or the scheduler has stopped it."""
        number = trial.config["number"]
        whole = self.records[number].rounds >= self.rounds[number]
        self._append(number, ended="complete" if whole else "stopped", reason="")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        path = trial.pickled_error_file  # `get_pickled_error` looks where Ray brings it only later
        error = cloudpickle.loads(Path(path).read_bytes()) if path else None
        self._append(trial.config["number"], ended="failed", reason=_reason(error))

    def take_over(self, number: int, source: int, values: dict[str, Any]) -> None:
        """A trial goes on from another's state after its last report, with new values of the swept keys."""
        rounds = self.records[source].rounds
        self._append(number, source=source, rounds=rounds, values=values)
        log.info("after %d rounds trial %03d goes on from %03d with %s", rounds, number, source, values)

    def _append(self, number: int, **what: Any) -> None:
        line = {"trial": number, **what, "time": round(time.time(), 2)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        record = self.records.setdefault(number, Record())
        record.take(line, self.records)
        if record.ended:
            ended = sum(bool(record.ended) for record in self.records.values())
            result = (
                f"{SCORE} {record.score:.4f} after {record.rounds} rounds"
                if record.reports
                else record.reason
            )
            log.info("%d of %d trials: %03d %s, %s", ended, len(self.rounds), number, record.ended, result)


def state_folder(number: int, taken_at: int) -> str:
    """Where a trial's checkpoints lie; those after a takeover apart from those before it."""
    return trial_name(number) + (f".{taken_at}" if taken_at else "")


def _reason(error: BaseException | None) -> str:
    """The sentence of the InputError behind a trial's failure, else the failure's last line."""
    last = error
    for last in chain(error) if error else ():
        if isinstance(last, InputError):
            return str(last)
    return (str(last).strip().splitlines() or ["unknown"])[-1]
