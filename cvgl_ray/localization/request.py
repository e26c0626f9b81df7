"""What is asked of a localisation on a map, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl_ray.reports.location import Location


@dataclass(frozen=True)
class Request:
    """What is asked for besides the configuration: paths or URIs; truth: a CSV file, or "exif"."""

    maps: Sequence[str]
    photos: Sequence[str]
    crs: str = ""
    bundle: Path | None = None
    cache: str = ""  # folder of cells; "": DIR/cells
    truth: str = ""
    write: Sequence[str] = ()
    every_s: float = 2.0  # between two frames that are taken of a video


@dataclass(frozen=True)
class Answer:
    """One row for each photo, sorted by image_id; metrics: with a truth."""

    rows: Sequence[Location]
    metrics: dict[str, Any] | None
    notes: Sequence[str]
    seconds: dict[str, float]
