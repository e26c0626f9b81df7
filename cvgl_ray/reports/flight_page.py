"""`report.html` of a localisation on a map: one file that opens without a network."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from cvgl_ray.reports.location import ASPECT, WGS84, Location, footprint
from cvgl_ray.reports.map_picture import MapPicture
from cvgl_ray.storage.files import write_atomically

PHOTO_PX = 440  # width of a photo, and of the map beside it
MOST_CARDS = 200  # photos that are shown; the page stays below 30 MB
# Vermilion, amber, sky, blue: after Okabe and Ito's palette, whose colours all eyes tell apart.
SCALE = ((0.0, (213, 94, 0)), (0.4, (240, 180, 40)), (0.7, (86, 180, 233)), (1.0, (0, 110, 190)))
UNKNOWN = "#6b7280"
RATING = ((0.75, "high"), (0.4, "medium"), (0.0, "low"))

Point = tuple[float, float]  # latitude, longitude in degrees
PhotoSource = Callable[
    [str], Image.Image | None
]  # image_id -> the photo, upright, any size; None: unreadable
CropSource = Callable[
    [Location, tuple[int, int]], Image.Image | None
]  # and (width, height) px -> the map there


@dataclass(frozen=True)
class Card:
    """One photo beside the map under it."""

    number: int  # place in the order given, from 1: the label on the map
    location: Location
    colour: str
    rating: str
    photo: str | None  # data URI
    crop: str | None
    off_m: float | None  # from the true place, where one is known


def write_page(
    path: Path,
    locations: Sequence[Location],
    *,
    map_picture: MapPicture,
    photo: PhotoSource,
    crop: CropSource,
    truth: Mapping[str, Point] | None = None,
    metrics: Mapping[str, Any] | None = None,
    parameters: Mapping[str, object] | None = None,
    priors: Sequence[str] = (),
    notes: Sequence[str] = (),
    title: str = "Where the photos were taken",
) -> None:
    """Write the page about photos in the order of the flight.

    truth: true places by image_id; they are drawn, and each photo's distance is told. metrics: what
    `evaluation.metres.localization_metrics` gives. parameters: what the run was asked for. priors: sentences
    on what was known beforehand. notes: what was left out or assumed. Of many photos the least certain and
    a sample of the others are shown; the map and the tables count all.
    """
    truth = truth or {}
    cards, aspects = [], {}
    for index in _worth_showing(locations):
        card, aspect = _card(index + 1, locations[index], photo, crop, truth)
        cards.append(card)
        if aspect is not None:
            aspects[card.location.image_id] = aspect
    usual = float(np.median(list(aspects.values()))) if aspects else ASPECT
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("flight_page.html.jinja").render(
        title=title,
        cards=cards,
        shown={card.number for card in cards},
        summary=summarise(locations),
        metrics=metrics,
        parameters=parameters or {},
        priors=priors,
        notes=notes,
        total=len(locations),
        overlay=_overlay(locations, map_picture, aspects, usual, truth),
        map_uri=data_uri(map_picture.image.convert("RGB"), quality=84),
        bar=scale_bar(map_picture),
        ramp=", ".join(f"{colour_of(step)} {100 * step:.0f}%" for step, _ in SCALE),
    )
    write_atomically(path, lambda temporary: temporary.write_bytes(page.encode()))


def _card(
    number: int, location: Location, photo: PhotoSource, crop: CropSource, truth: Mapping[str, Point]
) -> tuple[Card, float | None]:
    """A photo's card, and the photo's height over its width where it can be read."""
    picture, aspect = photo(location.image_id), None
    size = PHOTO_PX, round(PHOTO_PX * ASPECT)
    if picture is not None:
        aspect = picture.height / picture.width
        size = PHOTO_PX, max(1, round(PHOTO_PX * aspect))
        picture = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    piece = crop(location, size) if location.found else None
    card = Card(
        number=number,
        location=location,
        colour=colour_of(location.confidence),
        rating=rating_of(location.confidence),
        photo=None if picture is None else data_uri(picture),
        crop=None if piece is None else data_uri(piece),
        off_m=_off_m(location, truth),
    )
    return card, aspect


def summarise(locations: Sequence[Location]) -> dict[str, Any]:
    """Counts, and medians over the photos that were found."""
    found = [location for location in locations if location.found]

    def median(name: str) -> float | None:
        values = [value for location in found if (value := getattr(location, name)) is not None]
        return float(np.median(values)) if values else None

    names = ("error_m", "confidence", "ground_width_m")
    return {"photos": len(locations), "found": len(found), **{name: median(name) for name in names}}


def colour_of(confidence: float | None) -> str:
    """CSS colour of a confidence in [0, 1]; grey where it is not known."""
    if confidence is None:
        return UNKNOWN
    at = [step for step, _ in SCALE]
    red, green, blue = (
        round(float(np.interp(confidence, at, [rgb[c] for _, rgb in SCALE]))) for c in range(3)
    )
    return f"#{red:02x}{green:02x}{blue:02x}"


def rating_of(confidence: float | None) -> str:
    """A word for a confidence, for whoever cannot see its colour."""
    if confidence is None:
        return "unknown"
    return next(word for least, word in RATING if confidence >= least)


def data_uri(image: Image.Image, quality: int = 80) -> str:
    """A picture as a JPEG within the page."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def scale_bar(picture: MapPicture) -> dict[str, float | str]:
    """A round length of about a fifth of the map's width: its label, its share of the width in percent."""
    target = picture.image.width * picture.metres_per_pixel / 5
    power = 10.0 ** np.floor(np.log10(target))
    metres = max(step * power for step in (1, 2, 5) if step * power <= target)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    return {"label": label, "percent": 100 * metres / picture.metres_per_pixel / picture.image.width}


def _worth_showing(locations: Sequence[Location]) -> list[int]:
    """Numbers of the photos to show, least certain first: not found, then by confidence."""
    order = sorted(
        range(len(locations)), key=lambda i: (locations[i].found, locations[i].confidence or 0.0, i)
    )
    if len(order) <= MOST_CARDS:
        return order
    worst = order[: MOST_CARDS // 2]
    rest = order[MOST_CARDS // 2 :]
    return worst + [rest[i] for i in np.linspace(0, len(rest) - 1, MOST_CARDS - len(worst)).astype(int)]


def _off_m(location: Location, truth: Mapping[str, Point]) -> float | None:
    """Metres between a photo's place and its true one."""
    place, true = location.place, truth.get(location.image_id)
    if place is None or true is None or not np.isfinite(true).all():
        return None
    return float(WGS84.inv(place[1], place[0], true[1], true[0])[2])


def _overlay(
    locations: Sequence[Location],
    picture: MapPicture,
    aspects: Mapping[str, float],
    usual: float,
    truth: Mapping[str, Point],
) -> dict[str, Any]:
    """What is drawn on the map, in its pixels: the path, footprints, places, true places."""

    def points(places: Sequence[Point]) -> list[tuple[float, float]]:
        columns, rows = picture.place(*np.array(places, float).reshape(-1, 2).T)
        return [(round(float(x), 1), round(float(y), 1)) for x, y in zip(columns, rows, strict=True)]

    marks = []
    for number, location in enumerate(locations, start=1):
        if location.place is None:
            continue
        corners = footprint(location, aspects.get(location.image_id, usual))
        true = truth.get(location.image_id)
        marks.append(
            {
                "number": number,
                "location": location,
                "colour": colour_of(location.confidence),
                "at": points([location.place])[0],
                "corners": points(corners) if corners else None,
                "true": points([true])[0] if true is not None and np.isfinite(true).all() else None,
            }
        )
    return {"width": picture.image.width, "height": picture.image.height, "marks": marks}
