"""What a run's TensorBoard shows besides scalars: histograms, pictures, the projector, the figures."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.alignment.learned import pairs_of
from cvgl_ray.config import Config
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.reports.legend import MEANING
from cvgl_ray.reports.location import Location
from cvgl_ray.reports.projector import Projection
from cvgl_ray.reports.tables import markdown_table

BINS = 30


def score_histograms(labels: PseudoLabels) -> dict[str, dict[str, Any]]:
    """By tag, what a round's report holds of all match scores: a few dozen numbers, however many images."""
    scores = {"labels/cosine_of_best": labels.cosine, "labels/margin_of_best": labels.margin}
    return {name: _histogram(values) for name, values in scores.items()}


def pose_histograms(
    learned: Mapping[str, torch.Tensor], headings: int, widths: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """By tag, the poses of a round's pairs; learned: see alignment.learned."""
    pairs = pairs_of(learned)
    if pairs is None:
        return {}
    found = pairs[2]
    values = {
        "alignment/heading_deg": (360 - found.heading * (360 / headings)) % 360,
        "alignment/width": np.array(widths)[found.width],
        "alignment/offset": np.hypot(found.row, found.column),
        "alignment/lead": found.lead,
    }
    return {name: _histogram(some) for name, some in values.items()}


def _histogram(values: np.ndarray) -> dict[str, Any]:
    """Counts of values of any float type; those that are not finite are left out."""
    values = values[np.isfinite(values)].astype(np.float64)
    lowest, highest = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    # Equal scores, or scores that differ in their last bit, have no 30 bins between them.
    least = BINS * np.spacing(max(abs(lowest), abs(highest), 1.0))
    edges = np.linspace(lowest, max(highest, lowest + least), BINS + 1)
    counts, _ = np.histogram(values, edges)
    return {
        "min": lowest,
        "max": highest,
        "num": len(values),
        "sum": float(values.sum()),
        "sum_squares": float(np.square(values).sum()),
        "bucket_limits": edges[1:].tolist(),
        "bucket_counts": counts.tolist(),
    }


def write_training(
    folder: str,
    sheets: Mapping[int, np.ndarray],
    projection: Projection | None,
    aligned: np.ndarray | None = None,
) -> None:
    """Write the rounds' retrievals, pairs laid on each other ([H, W, 3] uint8) and a sample of embeddings."""
    with SummaryWriter(folder) as writer:
        if aligned is not None:
            writer.add_image("alignment/pairs", aligned, 0, dataformats="HWC")
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


def write_evaluation(folder: str, report: dict[str, Any], rounds: int, sheets: dict[str, np.ndarray]) -> None:
    """Write the figures of each model and direction, as charts and as a table, and pictures of retrievals.

    report: metrics.json's tree; rounds: of the model that was kept; sheets: by direction, [H, W, 3] uint8.
    """
    with SummaryWriter(folder) as writer:
        for model, step in (("frozen", 0), ("adapted", rounds), ("aligned", rounds + 1)):
            for direction, metrics in report.get(model, {}).items():
                for name in metrics.keys() & MEANING.keys():
                    writer.add_scalar(f"retrieval/{direction}/{name}", metrics[name], step)
        if report["adapted"]:
            writer.add_text("results", markdown_table(report), rounds)
        for direction, sheet in sheets.items():
            writer.add_image(f"retrieval/{direction}", sheet, rounds, dataformats="HWC")


class FlightRound(NamedTuple):
    """One search of a flight, by tag: figures, and values [n] of which a histogram is shown."""

    scalars: Mapping[str, float]
    values: Mapping[str, np.ndarray]


def write_flight(
    folder: str,
    history: Sequence[FlightRound],
    rows: Sequence[Location],
    metrics: Mapping[str, Any] | None,
    configuration: str,
    pictures: Sequence[np.ndarray] = (),
) -> None:
    """Write a localisation's rounds (frozen first), its places and, with a truth, its figures.

    configuration: as `configuration_table` gives it; pictures: photos laid on the map, [H, W, 3] uint8, of
    any sizes.
    """
    last = len(history) - 1
    with SummaryWriter(folder) as writer:
        for number, round_ in enumerate(history):
            for name, value in round_.scalars.items():
                writer.add_scalar(f"flight/{name}", value, number)
            for name, values in round_.values.items():
                writer.add_histogram_raw(f"flight/{name}", **_histogram(values), global_step=number)
        writer.add_scalar("flight/found_share", sum(row.found for row in rows) / len(rows), last)
        for name in ("confidence", "error_m", "heading_deg", "ground_width_m"):
            told = [getattr(row, name) for row in rows if row.found]
            values = np.array([value for value in told if value is not None])
            writer.add_histogram_raw(f"places/{name}", **_histogram(values), global_step=last)
        for number, picture in enumerate(pictures):
            writer.add_image("places/photo_map_both", picture, number, dataformats="HWC")
        if metrics is not None:
            for limit, percent in metrics["within"].items():
                writer.add_scalar(f"within_m/{limit}", percent, last)
        writer.add_text("configuration", configuration, 0)


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
