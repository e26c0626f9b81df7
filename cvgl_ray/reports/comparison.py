"""The table of a paired test of two runs."""

from collections.abc import Mapping

from cvgl_ray.evaluation.paired import Difference
from cvgl_ray.reports.tables import aligned_table

HEAD = ["direction", "model", "figure", "first", "second", "difference", "95 % interval", "p"]


def comparison_table(found: Mapping[str, Mapping[str, Mapping[str, Difference]]]) -> str:
    """A Markdown table, one row per direction, model and figure; figures in percent.

    found: what `query_table.compared` gives.
    """
    body = [
        [
            direction,
            model,
            figure,
            f"{one.first:.1f}",
            f"{one.second:.1f}",
            f"{one.difference:+.1f}",
            f"{one.low:+.1f} to {one.high:+.1f}",
            f"{one.p:.4f}" if one.p >= 0.0001 else "< 0.0001",
        ]
        for direction, models in found.items()
        for model, figures in models.items()
        for figure, one in figures.items()
    ]
    return aligned_table(HEAD, body)
