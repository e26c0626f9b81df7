"""What TensorBoard shows of a localisation: the EM's rounds, the places, some photos laid on the map."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvgl_ray.alignment.flight import SURE, Found
from cvgl_ray.alignment.scales import Scale
from cvgl_ray.config import Cells
from cvgl_ray.localization.inputs import Inputs
from cvgl_ray.localization.job import Localized
from cvgl_ray.localization.outputs import small
from cvgl_ray.localization.plan import searched_headings
from cvgl_ray.reports.location import Location
from cvgl_ray.reports.map_picture import map_under
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import FlightRound, write_flight

LAID = 6  # photos that are shown on the map under them
LAID_PX = 240  # of their longer side


def write_charts(
    folder: Path,
    cells: Cells,
    configuration: str,
    inputs: Inputs,
    done: Localized,
    rows: Sequence[Location],
    metrics: dict[str, Any] | None,
) -> None:
    """Write them to `folder`, in place of an earlier run's; where they cannot be made, the log says so."""
    assert done.adapted is not None
    with shown("the flight's charts"):
        shutil.rmtree(folder, ignore_errors=True)
        headings = searched_headings(cells)
        history = [_round(found, done.scales, headings) for found in done.adapted.rounds]
        write_flight(str(folder), history, rows, metrics, configuration, _laid(inputs, rows))


def _round(found: Found, scales: Sequence[Scale], headings: Sequence[float]) -> FlightRound:
    """One search of the flight: how sure it is, and the poses of the photos that are."""
    sure = (found.confidence >= SURE).nonzero().flatten().tolist()
    best = [(int(found.peaks.heading[n, 0]), int(found.peaks.scale[n, 0])) for n in sure]
    scalars = {
        "mean_confidence": float(found.confidence.mean()),
        "mean_lead": float(found.lead.mean()),
        "chance_lead": found.chance,
        "sure": float(len(sure)),
        "sure_share": len(sure) / len(found.confidence),
    }
    return FlightRound(
        scalars,
        {
            "sure_heading_deg": np.array([headings[heading] for heading, _ in best]),
            "sure_ground_m": np.array([scales[scale].side_m for _, scale in best]),
        },
    )


def _laid(inputs: Inputs, rows: Sequence[Location]) -> list[np.ndarray]:
    """Of some found photos, from the surest to the least: photo, map and both in one, [H, W, 3] uint8."""
    uris = {photo.image_id: photo.uri for photo in inputs.photos}
    found = sorted((row for row in rows if row.found), key=lambda row: -(row.confidence or 0.0))
    steps = np.linspace(0, len(found) - 1, min(LAID, len(found))).round().astype(int)
    pictures = []
    for row in (found[step] for step in steps):
        photo = small(uris[row.image_id])
        if photo is None:
            continue
        photo = photo.convert("RGB")
        photo.thumbnail((LAID_PX, LAID_PX))
        under = map_under(inputs.geomap, row, photo.size)
        if under is not None:
            under = under.convert("RGB")
            side_by_side = (photo, under, Image.blend(photo, under, 0.5))
            pictures.append(np.hstack([np.asarray(part) for part in side_by_side]))
    return pictures
