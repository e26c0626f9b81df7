"""A picture of pairs laid on each other: the query, as it was turned, and where it lies on the reference."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from cvgl_ray.reports.pictures import load_tiles
from cvgl_ray.reports.tables import GREEN, retrieval_sheet

SHOWN = 8  # pairs of a picture
TILE_PX = 160


class AlignedPair(NamedTuple):
    """A query's and its reference's image id, and how the one lies on the other: see `Found.pose`."""

    query: str
    reference: str
    pose: Mapping[str, float]


def aligned_sheet(
    pairs: Sequence[AlignedPair], uris: Mapping[str, str], *, strips: bool = False
) -> np.ndarray | None:
    """A few pairs, evenly from all, one per row: [H, W, 3] uint8; None without any.

    uris: by image id. The square on the reference is the query's ground; of strips, a line from its middle
    shows where the panorama's middle looks.
    """
    if not pairs:
        return None
    chosen = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, SHOWN).astype(int))]
    names = {name for pair in chosen for name in (pair.query, pair.reference)}
    tiles = load_tiles({name: uris[name] for name in names}, TILE_PX)
    queries = [tiles[pair.query] for pair in chosen]
    laid = [
        [_with_heading(tiles[pair.reference], pair.pose)]
        if strips
        else [
            tiles[pair.query].rotate(-pair.pose["heading_deg"]),  # Pillow turns counter-clockwise
            _with_footprint(tiles[pair.reference], pair.pose),
        ]
        for pair in chosen
    ]
    return retrieval_sheet(queries, laid, tile=TILE_PX)


def _with_footprint(reference: Image.Image, pose: Mapping[str, float]) -> Image.Image:
    drawn = reference.copy()
    width, height = drawn.size
    middle = width * (0.5 + pose["right"]), height * (0.5 + pose["down"])
    half = min(width, height) * pose["width"] / 2
    box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    ImageDraw.Draw(drawn).rectangle(box, outline=GREEN, width=2)
    return drawn


def _with_heading(reference: Image.Image, pose: Mapping[str, float]) -> Image.Image:
    drawn = reference.copy()
    middle, angle = (drawn.width / 2, drawn.height / 2), math.radians(pose["heading_deg"])
    reach = 0.45 * min(drawn.size)
    end = middle[0] + reach * math.sin(angle), middle[1] - reach * math.cos(angle)
    ImageDraw.Draw(drawn).line((*middle, *end), fill=GREEN, width=3)
    return drawn
