"""Photos of one folder, grouped into flights and put in order, by their times or their names' numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

GAP_S = 300.0  # without a photo: longer than a turn between two strips, shorter than the way to another site
LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")


@dataclass(frozen=True)
class Flight:
    """Photos that form a path."""

    name: str
    image_ids: tuple[str, ...]  # in order, where there is one
    seconds: tuple[float, ...] | None  # since the flight's first photo; None without times
    ordered: bool  # False: neither times nor numbers, so neighbours say nothing


def group_flights(
    image_ids: Sequence[str], times: Sequence[datetime | None], gap_s: float = GAP_S
) -> list[Flight]:
    """The flights among photos, by time first; every photo is in exactly one.

    A gap of more than `gap_s` seconds ends a flight. Photos without a time are grouped by what their names
    have before their last number and ordered by it; a name without a number stands alone in a group without
    order.
    """
    timed = sorted(
        (time, image_id) for image_id, time in zip(image_ids, times, strict=True) if time is not None
    )
    groups: list[list[tuple[datetime, str]]] = []
    for time, image_id in timed:
        if not groups or (time - groups[-1][-1][0]).total_seconds() > gap_s:
            groups.append([])
        groups[-1].append((time, image_id))
    flights = [
        Flight(
            f"{group[0][0]:%Y-%m-%d %H:%M:%S}",
            tuple(image_id for _, image_id in group),
            tuple((time - group[0][0]).total_seconds() for time, _ in group),
            True,
        )
        for group in groups
    ]
    return flights + _by_numbers(
        [image_id for image_id, time in zip(image_ids, times, strict=True) if time is None]
    )


def _by_numbers(image_ids: Sequence[str]) -> list[Flight]:
    numbered: dict[str, list[tuple[int, str]]] = {}
    rest = []
    for image_id in image_ids:
        match = _numbered(image_id)
        if match:
            numbered.setdefault(match.group(1), []).append((int(match.group(2)), image_id))
        else:
            rest.append(image_id)
    flights = [
        Flight(prefix or "numbers", tuple(image_id for _, image_id in sorted(group)), None, True)
        for prefix, group in sorted(numbered.items())
    ]
    return flights + ([Flight("unordered", tuple(sorted(rest)), None, False)] if rest else [])


def _numbered(image_id: str) -> re.Match[str] | None:
    """What stands before the last number of a name, and that number."""
    return LAST_NUMBER.match(image_id.rsplit(".", 1)[0])


def paths_of(image_ids: Sequence[str], flights: Sequence[Flight]) -> tuple[list[list[int]], list[float]]:
    """Which of the photos form paths, in order, and when each was taken: seconds, or its number.

    The moments [N] of two photos can be compared where they are of one flight; photos in no path have 0.
    """
    where = {image_id: number for number, image_id in enumerate(image_ids)}
    moments = [0.0] * len(image_ids)
    paths = []
    for flight in flights:
        if not flight.ordered:
            continue
        for place, image_id in enumerate(flight.image_ids):
            if image_id in where:
                match = _numbered(image_id)
                number = float(match.group(2)) if match else float(place)
                moments[where[image_id]] = flight.seconds[place] if flight.seconds else number
        paths.append([where[image_id] for image_id in flight.image_ids if image_id in where])
    return paths, moments
