"""What a sweep has seen, one JSON line per report, so that it goes on where its driver died."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cvgl_ray.em.judge import CHOICE
from cvgl_ray.em.learner import keeps_up
from cvgl_ray.errors import InputError

log = logging.getLogger(__name__)

SCORE = f"labels/{CHOICE}"
Ending = Literal["complete", "stopped", "failed"]


@dataclass
class Record:
    """A trial so far: its reports by rounds done (scalars by TensorBoard's names), and how it ended."""

    reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    ended: Ending | None = None
    reason: str = ""  # of a failure

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

    def take(self, line: dict[str, Any]) -> None:
        """Add what a line of the journal says."""
        if "scalars" in line:
            self.reports[line["rounds"]] = line["scalars"]
        else:
            self.ended, self.reason = line["ended"], line["reason"]


def read_journal(path: Path) -> dict[int, Record]:
    """Records by the trials' numbers; a last line that was cut off is passed over."""
    records: dict[int, Record] = {}
    content = path.read_bytes() if path.exists() else b""
    for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(text)
            records.setdefault(line["trial"], Record()).take(line)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is no report; remove the folder to start over"
            ) from error
    return records


class Journal:
    """Appends to the file what is learned of the trials, and keeps it in `records`.

    rounds: by trial number, how many rounds a complete trial has.
    """

    def __init__(self, path: Path, rounds: Mapping[int, int]) -> None:
        self.path, self.rounds = path, rounds
        self.records = read_journal(path)
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def report(self, number: int, done: int, scalars: Mapping[str, Any], seconds: float) -> None:
        """A trial has done so many rounds; one that goes on may report a round once more.

        scalars: of the round; seconds: since the trial's start.
        """
        if number in self.records and done <= self.records[number].rounds:
            return
        kept = {name: v for name, v in scalars.items() if name.split("/")[0] in ("em", "labels", "loss")}
        self._append(number, rounds=done, scalars=kept, seconds=round(seconds, 2))

    def end(self, number: int, reason: str = "") -> None:
        """A trial has ended: has done all its rounds, was stopped before, or has failed for a reason."""
        whole = number in self.records and self.records[number].rounds >= self.rounds[number]
        ended = "failed" if reason else "complete" if whole else "stopped"
        self._append(number, ended=ended, reason=reason)

    def _append(self, number: int, **what: Any) -> None:
        line = {"trial": number, **what, "time": round(time.time(), 2)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        record = self.records.setdefault(number, Record())
        record.take(line)
        if record.ended:
            ended = sum(bool(record.ended) for record in self.records.values())
            result = record.reason
            if record.reports:
                result = f"{SCORE} {record.score:.4f} after {record.rounds} rounds"
            log.info("%d of %d trials: %03d %s, %s", ended, len(self.rounds), number, record.ended, result)
