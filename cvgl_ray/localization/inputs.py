"""What a user gives, opened: a map, photos, a truth; what cannot be is refused before any model is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvgl_ray.config import Prior
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.truth import Truth, check_on_map, read_truth, share_on_map, truth_of_photos
from cvgl_ray.localization.photo_files import PhotoFile, open_photos
from cvgl_ray.localization.priors import positions
from cvgl_ray.maps.flights import Flight, group_flights
from cvgl_ray.maps.geomap import GeoMap, open_map
from cvgl_ray.maps.photos import list_photos
from cvgl_ray.maps.video import is_video, list_with_frames

OWN_GPS = "exif"  # in place of a truth's file: the photos' own GPS
NAMED = 5  # photos, or odd things, that a note names


@dataclass(frozen=True)
class Inputs:
    """A map and the photos to be placed on it; notes: what the user should know of them."""

    geomap: GeoMap
    photos: tuple[PhotoFile, ...]
    flights: tuple[Flight, ...]
    notes: tuple[str, ...]


def open_inputs(
    maps: Sequence[str],
    photos: Sequence[str],
    prior: Prior,
    crs: str = "",
    frames: Path | None = None,
    every_s: float = 2.0,
) -> Inputs:
    """Open the map and read what the photos say of themselves.

    frames: folder that takes a frame of each video every `every_s` seconds; None: videos are no photos.
    Raises InputError as `open_map`, `list_photos` and `list_with_frames` do, and where no photo's file can be
    read.
    """
    given = list(photos)
    video = next((path for path in given if is_video(path)), None)
    if frames is None and video is not None:
        raise InputError(
            f"{video!r} is a video, whose frames are kept in the run's folder: give a local --output to "
            "cvgl-ray localize, not a URI"
        )
    geomap = open_map(list(maps), crs)
    listed = list_photos(given) if frames is None else list_with_frames(given, frames, every_s)
    files = open_photos(listed)
    if all(photo.reason for photo in files):
        raise InputError(
            f"none of the {len(files)} photos can be read (first: {files[0].image_id}: {files[0].reason})"
        )
    flights = group_flights([photo.image_id for photo in files], [photo.info.time for photo in files])
    notes = [*geomap.notes, *_flight_notes(flights), *_metadata_notes(files, geomap, prior)]
    return Inputs(geomap, tuple(files), tuple(flights), tuple(notes))


def check_truth(truth: str, inputs: Inputs, prior: Prior) -> None:
    """Raise InputError for a truth that cannot be used. Nothing of it is kept: the end reads it again."""
    if not truth:
        return
    if truth == OWN_GPS and prior.position:
        raise InputError(
            "--truth exif takes the photos' GPS as the truth, and prior.position searches around it: leave"
            " one of them out"
        )
    load_truth(truth, inputs)


def load_truth(truth: str, inputs: Inputs) -> Truth:
    """The truth of a CSV file, or the photos' own GPS. Raises InputError as `read_truth`, and where no photo
    of the flight has a row, and where latitude and longitude are exchanged."""
    if truth == OWN_GPS:
        found = truth_of_photos([p.image_id for p in inputs.photos], [p.info for p in inputs.photos])
    else:
        found = read_truth(truth)
    names = {photo.image_id for photo in inputs.photos}
    if not names & set(found.image_ids):
        raise InputError(
            f"the truth {truth!r} has a row for none of the {len(names)} photos: its image_id is the photo's"
            f" name, such as {inputs.photos[0].image_id!r}; found {found.image_ids[0]!r}"
        )
    check_on_map(found, inputs.geomap)
    return found


def truth_notes(truth: str, found: Truth, inputs: Inputs) -> list[str]:
    """What the user should know of the truth."""
    notes = []
    names = {photo.image_id for photo in inputs.photos}
    lacking = len(names - set(found.image_ids))
    if truth == OWN_GPS:
        notes.append(
            "The truth is the photos' own GPS: where the camera was, not the ground under the photo's middle."
        )
    if lacking:
        notes.append(
            f"{lacking} of {len(names)} photos have no row in the truth; the figures leave them out."
        )
    if np.isfinite(found.latitude).any() and share_on_map(found, inputs.geomap) == 0:
        notes.append("None of the true positions lies on the map.")
    return notes


def _flight_notes(flights: Sequence[Flight]) -> list[str]:
    notes = []
    paths = [flight for flight in flights if flight.ordered]
    if len(paths) > 1:
        names = ", ".join(f"{flight.name} ({len(flight.image_ids)})" for flight in paths[:NAMED])
        more = ", ..." if len(paths) > NAMED else ""
        notes.append(f"The photos are of {len(paths)} flights, by their times and numbers: {names}{more}.")
    loose = sum(len(flight.image_ids) for flight in flights if not flight.ordered)
    if loose and paths:
        notes.append(f"{loose} photos have neither a time nor a number: they belong to no flight.")
    return notes


def _metadata_notes(photos: Sequence[PhotoFile], geomap: GeoMap, prior: Prior) -> list[str]:
    """What the photos say of themselves, used or not; and what is odd about that."""
    infos = [photo.info for photo in photos]
    told = {
        "a GPS position": (sum(info.latitude is not None for info in infos), "position", prior.position),
        "a heading": (sum(info.heading_deg is not None for info in infos), "heading", prior.heading),
        "a height": (sum(info.relative_altitude_m is not None for info in infos), "height", prior.height),
    }
    notes = [
        f"{count} of {len(infos)} photos tell {what}"
        + ("." if used else f", which is not used (prior.{key} does).")
        for what, (count, key, used) in told.items()
        if count
    ]
    east, north = (part.numpy() for part in positions(infos, geomap.frame))
    known = np.isfinite(east)
    off = int((~geomap.covers(east[known], north[known])).sum()) if known.any() else 0
    if off:
        notes.append(f"The GPS of {off} of these photos lies off the map.")
    odd = [f"{photo.image_id}: {note}" for photo in photos for note in photo.info.notes]
    if odd:
        more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        notes.append(f"Odd metadata, left out: {'; '.join(odd[:NAMED])}{more}.")
    return notes
