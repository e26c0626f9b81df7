"""The one TensorBoard folder of a run: rounds come from Ray Train's controller."""

from typing import Any

import ray.train
from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.config import Config
from cvgl_ray.reports.legend import about
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import configuration_table


class RoundWriter(ray.train.UserCallback):
    """Writes every round's scalars and histograms; runs in Ray Train's controller process.

    A scalar is the largest over the workers: they agree on all but time and memory.
    """

    def __init__(self, folder: str, config: Config) -> None:
        self.folder, self.config = folder, config
        self._writer: SummaryWriter | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with shown("a round's charts"):
            self._write(metrics)

    def _write(self, metrics: list[dict[str, Any]]) -> None:
        first = metrics[0]
        number = first["round"]
        if self._writer is None:  # opened here: the callback itself travels to the controller
            # What an interrupted run wrote of this round and later ones is not shown.
            self._writer = SummaryWriter(self.folder, purge_step=number)
            self._writer.add_text("about", about())
            self._writer.add_text("configuration", configuration_table(self.config))
        for name, value in first.items():
            if name in ("round", "histograms"):
                continue
            self._writer.add_scalar(name, max(worker.get(name, value) for worker in metrics), number)
        for name, histogram in first["histograms"].items():
            self._writer.add_histogram_raw(name, **histogram, global_step=number)
        self._writer.flush()
