"""A localisation on a map by a cluster: what `WorkHere` does for a whole flight, done part by part.

Cells are made by Ray Data, whose actors hold the model, and written here; searches read them where they lie
(see cell_server). Each part is done by the functions that one process uses, so the answer is the same.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import ray
import torch

from cvgl_ray.alignment.flight import Found
from cvgl_ray.alignment.ground_fit import Refined
from cvgl_ray.alignment.locate import Place
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import KERNELS, Peaks
from cvgl_ray.alignment.proposals import Look
from cvgl_ray.distributed import cell_server, session
from cvgl_ray.distributed.answers import TRIES, answers, giving_up
from cvgl_ray.distributed.map_tasks import Maker, Shared, fitted, searched
from cvgl_ray.distributed.pixel_pipeline import pool
from cvgl_ray.distributed.resources import (
    Need,
    given_everywhere,
    said_while_awaited,
)
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.localization import survey as surveys
from cvgl_ray.localization.cell_files import BlockKey, MadeBlock
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.work import Candidates, MadePhoto, Proposed, Start, WorkHere
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.progress import progress

# Of one part. They do not depend on the cluster, so that neither does the last digit of an answer.
PHOTOS_MADE, BLOCKS_MADE, PHOTOS_SEARCHED, PHOTOS_FITTED = 1, 4, 32, 4
SCORE_MAPS = 6  # of the kernels of one convolution, that a search holds at a time
MODEL_BYTES = 2**30  # of a process that holds the model and makes cells, about

Piece = TypeVar("Piece")


def map_work(address: str, model: CellModel, geomap: GeoMap, gpu: bool) -> "MapWork":
    """The work on the cluster at `address`, see `session.connect`; the model and the map are sent there.

    Raises InputError as `check_map_room` does.
    """
    check_map_room(address, gpu)
    session.connect(address)
    return MapWork(ray.put(WorkHere(model, geomap)), gpu)


def check_map_room(address: str, gpu: bool) -> None:
    """Raise InputError where no process that works can ever start, or where there is no cluster."""
    session.check_room(address, [_need(gpu)])


def _need(gpu: bool) -> Need:
    """One process that holds the model."""
    return Need(f"the localisation{' with run.gpu = true' if gpu else ''}", 1, {"GPU" if gpu else "CPU": 1.0})


class MapWork:
    """The work of a localisation, done by the cluster that this process is connected to; see work.Work."""

    def __init__(self, here: ray.ObjectRef, gpu: bool) -> None:
        """here: a WorkHere, which each process gets; on a GPU of its own with `gpu`."""
        self.here, self.gpu = here, gpu
        self._last: tuple[Survey, Shared] | None = None

    def photos(
        self, lacking: Sequence[tuple[PhotoFile, list[int]]], headings: Sequence[float]
    ) -> Iterator[MadePhoto]:
        return self._made(WorkHere.photos, _parts(lacking, PHOTOS_MADE), headings)

    def blocks(self, keys: Sequence[BlockKey]) -> Iterator[MadeBlock]:
        return self._made(WorkHere.blocks, _parts(keys, BLOCKS_MADE))

    def search(self, survey: Survey, adapter: CellAdapter) -> list[Peaks]:
        by_shard = self._by_shard(survey, surveys.shard_peaks, adapter, None)
        return surveys.together(
            [[surveys.stacked(rows) for rows in zip(*parts, strict=True)] for parts in by_shard]
        )

    def pairs(self, survey: Survey, adapter: CellAdapter, found: Found) -> torch.Tensor:
        by_shard = self._by_shard(survey, surveys.shard_pairs, adapter, found)
        return torch.cat([part for parts in by_shard for part in parts])

    def looks(self, asked: Sequence[Proposed], look: Look) -> Iterator[Peaks]:
        return self._fitted(WorkHere.looks, asked, look)

    def fits(self, asked: Sequence[Candidates], attenuation: torch.Tensor) -> Iterator[list[Refined]]:
        return self._fitted(WorkHere.fits, asked, attenuation)

    def places(self, starts: Sequence[Start], attenuation: torch.Tensor) -> Iterator[Place]:
        return self._fitted(WorkHere.places, starts, attenuation)

    def _made(self, make: Callable[..., Iterator[Any]], parts: Sequence[Any], *more: Any) -> Iterator[Any]:
        """What Ray Data's actors make of parts, in any order. One row is one part.

        Ray Data itself replaces actors that die; it has a limit for tasks, and none for actors.
        """
        if not parts:
            return
        ray.data.DataContext.get_current().enable_progress_bars = False  # `progress` counts pieces instead
        present = session.cluster_gpus() if self.gpu else session.cluster_cpus()
        rows = [{"part": pickle.dumps(part)} for part in parts]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Maker,  # type: ignore[arg-type]  # Ray constructs the class in its actors
            fn_constructor_args=(self.here, self.gpu, make, more),
            compute=pool(len(parts) if len(parts) < present else 0, present),
            **self._each,
        )
        awaited = said_while_awaited("the localisation", _need(self.gpu))
        with giving_up("making cells"), awaited as begun:
            for row in data.iter_rows():
                begun()
                yield from pickle.loads(row["made"])

    def _by_shard(
        self, survey: Survey, search: Callable[..., Any], adapter: CellAdapter, found: Found | None
    ) -> list[list[Any]]:
        """What a search gives, by shard and by part of the photos."""
        shared, adapter_there = self._share(survey), ray.put(adapter)
        photos = range(0, len(survey.digests), PHOTOS_SEARCHED)
        rows = [slice(start, min(start + PHOTOS_SEARCHED, len(survey.digests))) for start in photos]
        there = [None if found is None else surveys.rows_of(found, part) for part in rows]
        memory = given_everywhere(_search_bytes(survey))
        task = ray.remote(num_cpus=1, memory=memory, max_retries=TRIES)(searched)
        tasks = [
            partial(task.remote, shared, search, part, shard, adapter_there, known)
            for shard in survey.shards
            for part, known in zip(rows, there, strict=True)
        ]
        found_there = []
        with progress("search", len(tasks), "parts") as advance:
            for answer in answers(tasks, "the search", Need("the search", 1, {"CPU": 1.0})):
                found_there.append(answer)
                advance(1)
        return [found_there[at : at + len(rows)] for at in range(0, len(found_there), len(rows))]

    def _share(self, survey: Survey) -> Shared:
        """The survey in the object store; the last one stays there."""
        if self._last is None or self._last[0] is not survey:
            there = ray.put(survey)
            paths = ray.put([*survey.photo_files.paths, *survey.map_files.paths])
            self._last = survey, Shared(there, paths, cell_server.start_server(there))
        return self._last[1]

    def _fitted(
        self, fit: Callable[..., Iterator[Any]], asked: Sequence[Any], given: torch.Tensor | Look
    ) -> Iterator[Any]:
        """What fits or looks give, in order."""
        task = ray.remote(max_retries=TRIES, **self._each)(fitted)
        there = ray.put(given)
        tasks = [
            partial(task.remote, [self.here], self.gpu, fit, part, there)
            for part in _parts(asked, PHOTOS_FITTED)
        ]
        for answer in answers(tasks, "fitting", _need(self.gpu)):
            yield from answer

    @property
    def _each(self) -> dict[str, Any]:
        memory = given_everywhere(MODEL_BYTES)
        return {"num_cpus": 0 if self.gpu else 1, "num_gpus": 1 if self.gpu else 0, "memory": memory}


def _parts(pieces: Sequence[Piece], size: int) -> list[Sequence[Piece]]:
    return [pieces[start : start + size] for start in range(0, len(pieces), size)]


def _search_bytes(survey: Survey) -> int:
    """Of memory that a search of one shard takes, about."""
    files, window = survey.map_files, survey.shards[0].window
    metres = {scale.metres_per_pixel * files.stride for scale in survey.scales}
    cells = [window.width_m * window.height_m / side**2 for side in metres]
    return round(2 * files.channels * sum(cells) + 4 * KERNELS * SCORE_MAPS * max(cells))
