"""What a person looks at after a sweep: the table of its trials, the score against each swept key."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from cvgl_ray.evaluation.metrics import Metrics
from cvgl_ray.reports.tables import aligned_table

COLUMNS = 3  # of the figure
LOG_SPAN = 20  # an axis whose values span more than this factor is logarithmic


@dataclass(frozen=True)
class TrialRow:
    """One trial: the swept keys' values, its last label-free score (None: no report), how it ended."""

    name: str
    values: Mapping[str, Any]
    score: float | None
    rounds: int
    ended: str  # "complete", "stopped" or "failed"
    chosen: bool


def trials_csv(rows: Sequence[TrialRow], score: str) -> str:
    """All trials as CSV in the order of their numbers; score: the score's name."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", *rows[0].values, score, "rounds", "ended", "chosen"])
    for row in rows:
        values = [_plain(value) for value in row.values.values()]
        table.writerow([row.name, *values, row.score, row.rounds, row.ended, row.chosen])
    return text.getvalue()


def trials_markdown(rows: Sequence[TrialRow], score: str) -> str:
    """All trials as an aligned Markdown table, complete ones first, best first; the chosen one in bold."""
    body = [
        [
            f"**{row.name}**" if row.chosen else row.name,
            row.ended,
            *(_short(value) for value in row.values.values()),
            "-" if row.score is None else f"{row.score:.4f}",
            str(row.rounds),
        ]
        for row in _best_first(rows)
    ]
    return aligned_table(["trial", "ended", *rows[0].values, score, "rounds"], body)


def labels_markdown(
    rows: Sequence[TrialRow], figures: Mapping[str, Mapping[str, Metrics]], score: str
) -> str:
    """What labels say of complete trials, and how well the score had foreseen it.

    figures: by trial's name and direction, as metrics.json has them.
    """
    judged = [row for row in _best_first(rows) if row.name in figures]
    directions = list(figures[judged[0].name])
    head = ["trial", "chosen", score, *(f"{name} {d}" for d in directions for name in ("R@1", "AP"))]
    body = [
        [row.name, "yes" if row.chosen else "", f"{row.score:.4f}"]
        + [f"{figures[row.name][d][name]:.1f}" for d in directions for name in ("R@1", "AP")]
        for row in judged
    ]
    lines = [aligned_table(head, body), ""]
    scores = [row.score for row in judged]
    for direction in directions:
        recalls = [figures[row.name][direction]["R@1"] for row in judged]
        chosen = next(r for row, r in zip(judged, recalls, strict=True) if row.chosen)
        varied = len(set(scores)) > 1 and len(set(recalls)) > 1
        rank = f"{spearmanr(scores, recalls).statistic:.2f}" if varied else "undefined"
        lines.append(
            f"{direction}: the choice has R@1 {chosen:.1f}, the best complete trial {max(recalls):.1f}, "
            f"the median {np.median(recalls):.1f}; Spearman's rank correlation of {score} and R@1: {rank}."
        )
    return "\n".join(lines)


def score_figure(rows: Sequence[TrialRow], score: str) -> Figure:
    """The score against each swept key, one panel a key."""
    keys = list(rows[0].values)
    height, width = math.ceil(len(keys) / COLUMNS), min(COLUMNS, len(keys))
    figure = Figure(figsize=(4 * width, 3.2 * height), layout="constrained")
    panels = figure.subplots(height, width, squeeze=False, sharey=True).ravel()
    for panel, key in zip(panels, keys, strict=False):
        _draw(panel, rows, key)
    for panel in panels[len(keys) :]:
        panel.set_axis_off()
    for panel in panels[::width]:
        panel.set_ylabel(score)
    panels[0].legend(fontsize="small")
    return figure


def _draw(panel: Axes, rows: Sequence[TrialRow], key: str) -> None:
    """One panel: numbers on a number line, anything else as categories."""
    numeric = all(_is_number(row.values[key]) for row in rows)
    styles: dict[str, dict[str, Any]] = {
        "stopped": {"marker": "x", "color": "0.6"},
        "complete": {"marker": "o", "color": "tab:blue"},
        "chosen": {"marker": "*", "color": "tab:red", "s": 120},
    }
    for kind, style in styles.items():
        shown = [
            row for row in rows if row.score is not None and kind in (row.ended, row.chosen and "chosen")
        ]
        where = [row.values[key] if numeric else _short(row.values[key]) for row in shown]
        panel.scatter(where, [row.score or 0.0 for row in shown], label=kind, **style)
    positions = [row.values[key] for row in rows] if numeric else []
    if positions and min(positions) > 0 and max(positions) > LOG_SPAN * min(positions):
        panel.set_xscale("log")
    panel.set_xlabel(key)


def _best_first(rows: Sequence[TrialRow]) -> list[TrialRow]:
    ranks = {"complete": 0, "stopped": 1, "failed": 2}
    return sorted(rows, key=lambda row: (ranks[row.ended], -(row.score or 0.0), row.name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A value that a table's cell can hold: lists and tables as JSON."""
    return value if isinstance(value, int | float | str) else json.dumps(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(_plain(value))
