"""The one TensorBoard folder of a run: rounds come from Ray Train's controller, the rest from the driver."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.config import Config
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.reports.legend import MEANING, about
from cvgl_ray.reports.projector import Projection
from cvgl_ray.reports.tables import markdown_table

BINS = 30


class RoundWriter(ray.train.UserCallback):
    """Writes every round's scalars and histograms; runs in Ray Train's controller process.

    A scalar is the largest over the workers: they agree on all but time and memory.
    """

    def __init__(self, folder: str, config: Config) -> None:
        self.folder, self.config = folder, config
        self._writer: SummaryWriter | None = None

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
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


def score_histograms(labels: PseudoLabels) -> dict[str, dict[str, Any]]:
    """By tag, what a round's report holds of all match scores: a few dozen numbers, however many images."""
    scores = {"labels/cosine_of_best": labels.cosine, "labels/margin_of_best": labels.margin}
    return {name: _histogram(values) for name, values in scores.items()}


def _histogram(values: np.ndarray) -> dict[str, Any]:
    counts, edges = np.histogram(values, BINS)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "num": len(values),
        "sum": float(values.sum()),
        "sum_squares": float(np.square(values).sum()),
        "bucket_limits": edges[1:].tolist(),
        "bucket_counts": counts.tolist(),
    }


def write_training(folder: str, sheets: Mapping[int, np.ndarray], projection: Projection | None) -> None:
    """Write the rounds' retrievals (pictures [H, W, 3] uint8) and a sample of embeddings."""
    with SummaryWriter(folder) as writer:
        for number, sheet in sheets.items():
            writer.add_image("retrieval/by_round", sheet, number, dataformats="HWC")
        if projection is not None:
            shutil.rmtree(Path(folder) / "00000", ignore_errors=True)  # of a run interrupted here
            writer.add_embedding(
                projection.points,
                projection.metadata,
                projection.thumbnails,
                0,
                "pairs",
                list(projection.HEADER),
            )


def write_evaluation(
    folder: str, report: dict[str, Any], config: Config, sheets: dict[str, np.ndarray]
) -> None:
    """Write the figures of each model and direction, as charts and as a table, and pictures of retrievals.

    report: metrics.json's tree; sheets: by direction, [H, W, 3] uint8.
    """
    rounds = int(report["selection"].get("rounds", config.mstep.rounds))  # those of the model that was kept
    with SummaryWriter(folder) as writer:
        for model, step in (("frozen", 0), ("adapted", rounds)):
            for direction, metrics in report[model].items():
                for name in metrics.keys() & MEANING.keys():
                    writer.add_scalar(f"retrieval/{direction}/{name}", metrics[name], step)
        if report["adapted"]:
            writer.add_text("results", markdown_table(report), rounds)
        for direction, sheet in sheets.items():
            writer.add_image(f"retrieval/{direction}", sheet, rounds, dataformats="HWC")


def configuration_table(config: Config) -> str:
    """The resolved configuration as a Markdown table, beside the defaults that it departs from."""
    resolved, default = _flat(config.model_dump(mode="json")), _flat(Config().model_dump(mode="json"))
    rows = [
        f"| {key} | {value} | {'' if value == default[key] else f'**{default[key]}**'} |"
        for key, value in resolved.items()
    ]
    return "\n".join(["| key | value | default, where it is another |", "| --- | --- | --- |", *rows])


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = repr(value)
    return flat
