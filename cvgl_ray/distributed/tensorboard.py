"""The one TensorBoard writer: each round's scalars from the controller, the evaluation's from the driver."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.train
from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.config import Config

if TYPE_CHECKING:  # matplotlib and scipy.stats would cost each of a training's processes seconds
    from cvgl_ray.evaluation.sweep_report import TrialRow


class RoundWriter(ray.train.UserCallback):
    """Writes rank 0's scalars of every round into a log folder; runs in Ray Train's controller process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if self._writer is None:  # opened here: the callback itself travels to the controller
            self._writer = SummaryWriter(self.folder)
        number = metrics[0]["round"]
        for name, value in metrics[0].items():
            if name != "round":
                self._writer.add_scalar(name, value, number)
        self._writer.flush()


def write_evaluation(
    folder: str, report: dict[str, Any], config: Config, sheets: dict[str, np.ndarray]
) -> None:
    """Write recall and AP of each stage and direction, the configuration, and pictures of retrievals.

    report: metrics.json's tree; sheets: by name, [H, W, 3] uint8.
    """
    with SummaryWriter(folder) as writer:
        rounds = config.mstep.rounds
        for stage, step in (("frozen", 0), ("adapted", rounds)):
            for direction, metrics in report.get(stage, {}).items():
                for name, value in metrics.items():
                    writer.add_scalar(f"{direction}/{name}", value, step)
        writer.add_text("configuration", f"```json\n{config.model_dump_json(indent=2)}\n```")
        for name, sheet in sheets.items():
            writer.add_image(name, sheet, rounds, dataformats="HWC")


def write_hparams(folder: str, rows: "Sequence[TrialRow]", score: str) -> None:
    """Add each trial's swept values and score to its logs, `folder`/<name>, for TensorBoard's HParams."""
    with SummaryWriter(folder) as writer:
        for row in rows:
            if row.score is not None:
                values = {
                    key: value if isinstance(value, int | float | str) else json.dumps(value)
                    for key, value in row.values.items()
                }
                writer.add_hparams(values, {score: row.score}, run_name=row.name, global_step=row.rounds)
