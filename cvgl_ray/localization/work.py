"""Who does what takes time when a flight is localised: this process, or a cluster by the same functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch

from cvgl_ray.alignment.flight import Found
from cvgl_ray.alignment.ground_fit import Ground, Refined
from cvgl_ray.alignment.locate import Place, locate
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.plane import Pose
from cvgl_ray.alignment.proposals import Look, looked_at_again
from cvgl_ray.alignment.turned import PhotoCells
from cvgl_ray.alignment.verify import verify
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.pixels import BrokenImageError
from cvgl_ray.localization import survey as surveys
from cvgl_ray.localization.cell_files import BlockKey, MadeBlock, make_block, make_photo
from cvgl_ray.localization.photo_files import PhotoFile, read_pixels
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.threads import in_threads
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.progress import progress


class MadePhoto(NamedTuple):
    """A photo's cells by size, none where `reason` says that it cannot be used."""

    photo: PhotoFile
    cells: dict[int, PhotoCells]
    reason: str = ""


class Candidates(NamedTuple):
    """Where a photo may lie."""

    photo: PhotoFile
    poses: list[Pose]


class Proposed(NamedTuple):
    """Where a photo may lie by a coarse search: peaks [1, K]."""

    photo: PhotoFile
    peaks: Peaks


class Start(NamedTuple):
    """What the last fit of a photo begins with."""

    photo: PhotoFile
    fit: Refined
    confidence: float


class Work(Protocol):
    """Who does what takes time. Photos and blocks come in any order, all else in the order asked."""

    def photos(
        self, lacking: Sequence[tuple[PhotoFile, list[int]]], headings: Sequence[float]
    ) -> Iterator[MadePhoto]: ...

    def blocks(self, keys: Sequence[BlockKey]) -> Iterator[MadeBlock]: ...

    def search(self, survey: Survey, adapter: CellAdapter) -> list[Peaks]: ...

    def pairs(self, survey: Survey, adapter: CellAdapter, found: Found) -> torch.Tensor: ...

    def looks(self, asked: Sequence[Proposed], look: Look) -> Iterator[Peaks]: ...

    def fits(self, asked: Sequence[Candidates], attenuation: torch.Tensor) -> Iterator[list[Refined]]: ...

    def places(self, starts: Sequence[Start], attenuation: torch.Tensor) -> Iterator[Place]: ...


@dataclass(frozen=True)
class WorkHere:
    """All of it in this process."""

    model: CellModel
    geomap: GeoMap

    def photos(
        self, lacking: Sequence[tuple[PhotoFile, list[int]]], headings: Sequence[float]
    ) -> Iterator[MadePhoto]:
        return in_threads(partial(self._photo, headings), lacking)

    def _photo(self, headings: Sequence[float], lacking: tuple[PhotoFile, list[int]]) -> MadePhoto:
        photo, sides = lacking
        try:
            pixels = read_pixels(photo.uri)
        except BrokenImageError as error:
            return MadePhoto(photo, {}, str(error))
        return MadePhoto(photo, make_photo(pixels, sides, headings, self.model, self.model.stride))

    def blocks(self, keys: Sequence[BlockKey]) -> Iterator[MadeBlock]:
        return in_threads(self._block, keys)

    def _block(self, key: BlockKey) -> MadeBlock:
        return make_block(self.geomap, key, self.model, self.model.stride, self.model.channels)

    def search(self, survey: Survey, adapter: CellAdapter) -> list[Peaks]:
        found = []
        with progress("search", len(survey.shards), "shards") as advance:
            for shard in survey.shards:
                found.append(surveys.shard_peaks(survey, shard, adapter))
                advance(1)
        return surveys.together(found)

    def pairs(self, survey: Survey, adapter: CellAdapter, found: Found) -> torch.Tensor:
        return torch.cat([surveys.shard_pairs(survey, shard, adapter, found) for shard in survey.shards])

    def looks(self, asked: Sequence[Proposed], look: Look) -> Iterator[Peaks]:
        def again(one: Proposed) -> Peaks:
            pixels = read_pixels(one.photo.uri)
            read, model = self.geomap.read, self.model
            return looked_at_again(*pixels, one.peaks, look, read, model, model.stride)

        return in_threads(again, asked)

    def fits(self, asked: Sequence[Candidates], attenuation: torch.Tensor) -> Iterator[list[Refined]]:
        def fit(one: Candidates) -> list[Refined]:
            return verify(*read_pixels(one.photo.uri), one.poses, self.ground, attenuation)

        return in_threads(fit, asked)

    def places(self, starts: Sequence[Start], attenuation: torch.Tensor) -> Iterator[Place]:
        def place(start: Start) -> Place:
            pixels = read_pixels(start.photo.uri)
            return locate(*pixels, start.fit, start.confidence, self.ground, attenuation)

        return in_threads(place, starts)

    @property
    def ground(self) -> Ground:
        """The map and the network, as fits use them."""
        return Ground(self.geomap.read, self.geomap.metres_per_pixel, self.model, self.model.stride)
