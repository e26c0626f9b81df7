"""What a person looks at: the table of frozen against adapted, and a picture of some retrievals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cvgl_ray.evaluation.metres import SDM_DEPTHS, WITHIN_M

MODELS = ("frozen", "adapted", "aligned")

BOUNDS = ("_low", "_high")  # what the names of a figure's bounds end in

# Figures of places on the ground, in a table of their own.
IN_METRES = (
    "median_error_m",
    "Dis@1_m",
    *(f"L@{limit}m" for limit in WITHIN_M),
    *(f"SDM@{k}" for k in SDM_DEPTHS),
)

TRANSDUCTIVE = "Tested on the images trained on: adapted to an area without labels, then localised in it."

FRAME_PX = 4
GAP_PX = 2
GREEN, RED, WHITE = (30, 160, 60), (205, 40, 40), (255, 255, 255)


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """An aligned Markdown table, one row per direction and model; reads well in a terminal too.

    Figures of places on the ground, where there are any, follow in a second one. Below stands
    whether the images tested are the images trained on.

    Args:
        metrics: what metrics.json holds: any of "frozen", "adapted" and "aligned", each a mapping of
            direction to figures, and "trained_on_test_images". A figure that a row lacks shows as "-"; one
            that has bounds ("R@1_low", "R@1_high") has them behind it.
    """
    rows = [
        (direction, model, figures)
        for model in MODELS
        for direction, figures in metrics.get(model, {}).items()
    ]
    order = list(dict.fromkeys(direction for direction, _, _ in rows))
    rows.sort(key=lambda row: order.index(row[0]))  # stable: frozen stays above adapted
    names = list(dict.fromkeys(name for _, _, figures in rows for name in figures))
    names = [name for name in names if not name.endswith(BOUNDS)]
    if not any(figures.get("queries_without_relevant") for _, _, figures in rows):
        names = [name for name in names if name != "queries_without_relevant"]
    metres = [name for name in names if name in IN_METRES]
    tables = [[name for name in names if name not in IN_METRES]] + ([metres] if metres else [])
    texts = [_figures_table(rows, columns) for columns in tables]
    return "\n\n".join([*texts, TRANSDUCTIVE] if metrics.get("trained_on_test_images") else texts)


def score_line(selection: Mapping[str, Any]) -> str:
    """What the label-free score of a model is and how far it can be trusted, in a line.

    selection: the model's label-free scores, as metrics.json has them.
    """
    if selection.get("score") is None:
        return "label-free score: none (two models of half the features judge, and need 20 images per view)"
    low, high = selection["score_low"], selection["score_high"]
    return f"label-free score: {selection['score']:.2f} (95 % interval {low:.2f} to {high:.2f}, chance 0)"


def aligned_table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table with columns of one width: two of words, the others of figures."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * width for width in widths[:2]] + ["-" * (width - 1) + ":" for width in widths[2:]]
    lines = [_aligned(head, widths), rule, *(_aligned(line, widths) for line in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def retrieval_sheet(
    queries: Sequence[Image.Image],
    retrieved: Sequence[Sequence[Image.Image]],
    correct: Sequence[Sequence[bool]] | None = None,
    *,
    tile: int = 96,
) -> np.ndarray:
    """A picture of some queries, one a row, followed by what was retrieved for each, best first.

    Args:
        queries: at least one image of any size and mode.
        retrieved: per query its references; rows may differ in length.
        correct: per query and reference, whether it shows the query's place: a green or a red frame; None
            where that is not known: no frames.
        tile: side in px of an image's square, its frame included; an image keeps its aspect.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    assert len(queries) == len(retrieved) > 0
    step = tile + GAP_PX
    columns = 1 + max(map(len, retrieved))
    sheet = Image.new("RGB", (columns * step - GAP_PX, len(queries) * step - GAP_PX), WHITE)
    for i, (query, references) in enumerate(zip(queries, retrieved, strict=True)):
        colours = [WHITE] * len(references)
        if correct is not None:
            assert len(correct[i]) == len(references)
            colours = [GREEN if hit else RED for hit in correct[i]]
        tiles = [(query, WHITE), *zip(references, colours, strict=True)]
        for j, (image, colour) in enumerate(tiles):
            sheet.paste(_framed(image, colour, tile), (j * step, i * step))
    return np.array(sheet)


def _framed(image: Image.Image, colour: tuple[int, int, int], tile: int) -> Image.Image:
    """The whole image in a square of `tile` px with a frame of FRAME_PX in the colour."""
    inner = tile - 2 * FRAME_PX
    square = ImageOps.pad(image.convert("RGB"), (inner, inner), color=WHITE)
    return ImageOps.expand(square, FRAME_PX, fill=colour)


def _figures_table(rows: Sequence[tuple[str, str, Mapping[str, float | int]]], names: list[str]) -> str:
    """The table of some figures of rows (direction, model, figures)."""
    head = ["direction", "model", *(name.replace("_", " ") for name in names)]
    body = [
        [direction, model, *(_bounded(figures, name) for name in names)] for direction, model, figures in rows
    ]
    return aligned_table(head, body)


def _aligned(cells: list[str], widths: list[int]) -> list[str]:
    """The cells of a line padded to the widths: words to the left, figures to the right."""
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    return left + [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]


def _bounded(figures: Mapping[str, float | int], name: str) -> str:
    """A figure and, where it has a 95 % interval, its bounds."""
    low, high = (figures.get(name + end) for end in BOUNDS)
    bounds = "" if low is None or high is None else f" ({low:.1f} to {high:.1f})"
    return _cell(figures.get(name)) + bounds


def _cell(value: float | int | None) -> str:
    """One figure as text: a count whole, anything else with one decimal, "-" where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
