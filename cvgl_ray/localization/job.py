"""From photos and a map to places: cells that lack are made, the flight teaches, photos are fitted.

What takes time is done by a `Work`, in this process or on a cluster.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cvgl_ray.alignment.adaptation import Adapted, adapt
from cvgl_ray.alignment.flight import Found, decide, full_cells
from cvgl_ray.alignment.ground_fit import Refined
from cvgl_ray.alignment.locate import Place
from cvgl_ray.alignment.path import Paths, along_paths, vouched
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.plane import Pose
from cvgl_ray.alignment.scales import Scale, photo_sides, resolutions
from cvgl_ray.alignment.verify import candidates, with_fits
from cvgl_ray.config import Cells, Prior
from cvgl_ray.errors import InputError
from cvgl_ray.localization.cell_bundle import known
from cvgl_ray.localization.cell_files import MapCellFiles, PhotoCellFiles
from cvgl_ray.localization.making import make_blocks, make_photos
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.plan import is_large, searched_headings, searched_scales
from cvgl_ray.localization.priors import Allowed, allowed_poses
from cvgl_ray.localization.second_look import second_look
from cvgl_ray.localization.survey import Survey, cut, photos_per_batch, samples
from cvgl_ray.localization.work import Candidates, Start, Work
from cvgl_ray.maps.flights import Flight, paths_of
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.progress import progress

log = logging.getLogger(__name__)

NOWHERE = "it fits nowhere on the map"


@dataclass
class Localized:
    """Places by image_id, reasons of the photos that have none, and what was learned and said on the way."""

    places: dict[str, Place] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    adapted: Adapted | None = None
    scales: Sequence[Scale] = ()
    priors: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the wall seconds of a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


class Verified(NamedTuple):
    """What is found once peaks are fitted, and the fits of each photo."""

    found: Found
    fits: list[list[Refined]]


def localize_photos(
    photos: Sequence[PhotoFile],
    geomap: GeoMap,
    root: Path,
    recipe: dict[str, Any],
    channels: int,
    stride: int,
    work: Work,
    cells: Cells,
    prior: Prior,
    learned: CellAdapter | None = None,
    flights: Sequence[Flight] = (),
) -> Localized:
    """The places of photos on a map.

    root: folder of cells, found again by every run. recipe: of the model's cells. learned: what another
    flight has taught. flights: of which the photos are; in those with an order neighbours choose between
    peaks. Raises InputError as `searched_scales` and `allowed_poses`, and where no photo can be
    used.
    """
    done = Localized()
    scales = searched_scales(cells, geomap)
    headings = searched_headings(cells)
    done.reasons = {photo.image_id: photo.reason for photo in photos if photo.reason}
    readable = [photo for photo in photos if not photo.reason]
    allowed, done.priors = allowed_poses(prior, [photo.info for photo in readable], geomap, scales, headings)
    allowed, scales = _needed(allowed, scales)
    photo_files = PhotoCellFiles(root, photo_sides(scales), headings, recipe)
    with done.timed("photo cells"):
        done.reasons |= make_photos(readable, photo_files, work, headings)
    usable = [number for number, photo in enumerate(readable) if photo.image_id not in done.reasons]
    if not usable:
        first, reason = next(iter(done.reasons.items()))
        raise InputError(f"none of the {len(photos)} photos can be used (first: {first}: {reason})")
    used = [readable[number] for number in usable]
    map_files = MapCellFiles(root, geomap, resolutions(scales), recipe, stride, channels)
    with done.timed("map cells"):
        make_blocks(map_files, work)
    done.damaged, done.scales = map_files.damaged(), scales
    survey = _survey(used, photo_files, map_files, scales, allowed.of(usable))
    asked = flights if cells.path else ()
    paths = Paths(*paths_of([photo.image_id for photo in used], asked), geomap.area_m2)

    def verify(adapter: CellAdapter, found: Found) -> Verified:
        with done.timed("verification"):
            found = along_paths(found, scales, paths)
            chosen, poses = candidates(found, scales, headings)
            fits = _fits(used, poses, work, adapter.attenuation)
            found = with_fits(found, chosen, fits)
            return Verified(vouched(found, scales, paths), fits)

    done.adapted = _adapted(used, survey, headings, work, cells, learned, verify, done)
    attenuation = done.adapted.adapter.attenuation
    starts = _starts(used, verify(done.adapted.adapter, done.adapted.found))
    with done.timed("fit"), progress("fitting", len(starts), "photos") as advance:
        for start, place in zip(starts, work.places(starts, attenuation), strict=True):
            done.places[start.photo.image_id] = place
            advance(1)
    done.reasons |= {photo.image_id: NOWHERE for photo in used if photo.image_id not in done.places}
    return done


def _fits(
    photos: Sequence[PhotoFile], poses: Sequence[list[Pose]], work: Work, attenuation: torch.Tensor
) -> list[list[Refined]]:
    """The fit of each photo's candidates, by photo."""
    asked = [Candidates(photo, found) for photo, found in zip(photos, poses, strict=True) if found]
    with progress("verifying", len(asked), "photos") as advance:
        made = []
        for fitted in work.fits(asked, attenuation):
            made.append(fitted)
            advance(1)
    left = iter(made)
    return [next(left) if found else [] for found in poses]


def _starts(photos: Sequence[PhotoFile], verified: Verified) -> list[Start]:
    """The best fit of each photo's candidates and how sure it is; photos without a peak are left out."""
    sure = verified.found.confidence.tolist()
    return [
        Start(photo, max(fitted, key=lambda fit: fit.score), confidence)
        for photo, fitted, confidence in zip(photos, verified.fits, sure, strict=True)
        if fitted
    ]


def _needed(allowed: Allowed, scales: list[Scale]) -> tuple[Allowed, list[Scale]]:
    """Without the scales that are allowed to no photo."""
    if allowed.scales is None:
        return allowed, scales
    kept = allowed.scales.any(dim=0)
    some = [scale for scale, needed in zip(scales, kept.tolist(), strict=True) if needed]
    return replace(allowed, scales=allowed.scales[:, kept]), some


def _survey(
    photos: Sequence[PhotoFile],
    photo_files: PhotoCellFiles,
    map_files: MapCellFiles,
    scales: Sequence[Scale],
    allowed: Allowed,
) -> Survey:
    digests = tuple(photo.digest for photo in photos)
    some = photo_files.read(digests[:: -(-len(digests) // 100)])
    # Half the square that holds a photo in any heading, and the neighbours that a peak is told from.
    reach = max(
        scale.metres_per_pixel
        * map_files.stride
        * (0.75 * max(p.masks.shape[-1] for p in some[scale.side_px]) + 1)
        for scale in scales
    )
    finest = min(scale.metres_per_pixel for scale in scales) * map_files.stride
    shards = cut(map_files.geomap.bounds, finest, reach)
    return Survey(
        digests,
        photo_files,
        map_files,
        tuple(scales),
        allowed,
        tuple(shards),
        full_cells(some),
        photos_per_batch(some),
    )


def _adapted(
    photos: Sequence[PhotoFile],
    survey: Survey,
    headings: Sequence[float],
    work: Work,
    cells: Cells,
    learned: CellAdapter | None,
    verify: Callable[[CellAdapter, Found], Verified],
    done: Localized,
) -> Adapted:
    """What the flight teaches, and where its photos are by that.

    A large map is searched once, coarsely; what it proposes is looked at again in fine cells.
    """
    large, proposed = is_large(cells, survey.map_files.geomap), list[Peaks]()

    def search(adapter: CellAdapter) -> list[Peaks]:
        if proposed:
            with done.timed("second look"):
                return [second_look(proposed, photos, survey, cells, headings, adapter, work)]
        with done.timed("search"):
            found = work.search(survey, adapter)
        proposed.extend(found if large else [])
        return found

    def pairs(adapter: CellAdapter, found: Found) -> torch.Tensor:
        with done.timed("learning"):
            return work.pairs(survey, adapter, found)

    with done.timed("learning"):
        sampled = samples(survey)
        start = None if learned is None else known(learned, sampled, cells.channels)
    adapted = adapt(
        search,
        pairs,
        sampled,
        survey.scales,
        verify=lambda adapter, found: verify(adapter, found).found,
        rounds=cells.rounds,
        channels=cells.channels,
        adapter=start,
    )
    if large and len(adapted.rounds) == 1:  # nothing was learned, or was to be
        last = decide(search(adapted.adapter), survey.scales)
        return adapted._replace(rounds=[*adapted.rounds, last])
    return adapted
