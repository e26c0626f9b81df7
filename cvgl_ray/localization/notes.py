"""What the user should know of how a localisation went, and what the page says of how it was made."""

from collections.abc import Sequence

from cvgl_ray.config import Backbone, Cells
from cvgl_ray.localization.inputs import NAMED, Inputs
from cvgl_ray.localization.job import Localized
from cvgl_ray.localization.plan import is_large
from cvgl_ray.localization.request import Request
from cvgl_ray.reports.location import Location


def outcome_notes(rows: Sequence[Location], done: Localized) -> list[str]:
    """Sentences on what is damaged, cannot be used or was not found."""
    notes = [f"Part of {name} is damaged: it was left out." for name in done.damaged]
    unusable = [f"{name} ({reason})" for name, reason in sorted(done.reasons.items())]
    if unusable:
        more = ", ..." if len(unusable) > NAMED else ""
        notes.append(f"{len(unusable)} photos cannot be used: {', '.join(unusable[:NAMED])}{more}.")
    if not any(row.found for row in rows):
        notes.append("None of the photos was found: do they lie on this map?")
    return notes


def parameters(
    backbone: Backbone, cells: Cells, request: Request, inputs: Inputs, done: Localized
) -> dict[str, object]:
    """By name, what the search was given and how long its parts took."""
    sides = [scale.side_m for scale in done.scales]
    large = is_large(cells, inputs.geomap)
    return {
        "map": ", ".join(request.maps),
        "area": f"{inputs.geomap.area_m2 / 1e6:.2f} km²",
        "pixel": f"{inputs.geomap.metres_per_pixel:.2f} m",
        "photos": ", ".join(request.photos),
        "backbone": backbone.name,
        "weights": backbone.checkpoint or ("timm's hub" if backbone.pretrained else "random"),
        "ground searched": f"{min(sides):.0f} to {max(sides):.0f} m, {len(sides)} sizes",
        "cells": "coarse, then fine where photos may lie" if large else "fine",
        "headings": cells.headings,
        "adaptation": f"{cells.rounds} rounds" if cells.rounds else "none",
        "bundle": str(request.bundle or "none"),
        "seconds": ", ".join(f"{part} {took:.1f}" for part, took in done.seconds.items()),
    }
