"""What processes of a cluster do in a localisation on a map: parts of what `WorkHere` does for a flight."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import torch

from cvgl_ray.alignment.flight import Found
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.proposals import Look
from cvgl_ray.distributed import cell_server
from cvgl_ray.localization.survey import Shard, Survey
from cvgl_ray.localization.work import WorkHere


@dataclass(frozen=True)
class Shared:
    """A survey in the object store, and what a task needs to read its cells on any node."""

    survey: ray.ObjectRef
    paths: ray.ObjectRef
    server: Any


class Maker:
    """Ray Data actor: holds the model; parts of photos, or of the map, -> their cells."""

    def __init__(
        self, here: ray.ObjectRef, gpu: bool, make: Callable[..., Iterator[Any]], more: tuple[Any, ...]
    ) -> None:
        self.work, self.make, self.more = _work([here], gpu), make, more

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        made = list(self.make(self.work, pickle.loads(row["part"]), *self.more))
        return {"made": pickle.dumps(made)}


def fitted(
    here: list[ray.ObjectRef],
    gpu: bool,
    fit: Callable[..., Iterator[Any]],
    part: Sequence[Any],
    given: torch.Tensor | Look,
) -> list[Any]:
    """Task: a part of the photos' second looks, fits, or places."""
    _survey.cache_clear()  # searches are over: their cells need not wait for what comes after them
    return list(fit(_work(here, gpu), part, given))


def searched(
    shared: Shared,
    search: Callable[..., Any],
    rows: slice,
    shard: Shard,
    adapter: CellAdapter,
    found: Found | None,
) -> Any:
    """Task: what a search of some photos on one shard gives; found: for `shard_pairs` alone."""
    torch.set_num_threads(1)  # a task holds one core; Ray's own limit yields to OMP_NUM_THREADS
    survey = cell_server.readable(*_survey(shared.survey, shared.paths), shared.server)
    return search(survey.of(rows), shard, adapter, *([] if found is None else [found]))


# Each process keeps the last model and the last survey, with the cells that it holds, for its next task.


def _work(here: list[ray.ObjectRef], gpu: bool) -> WorkHere:
    torch.set_num_threads(1)
    return _loaded(here[0], gpu)


@lru_cache(maxsize=1)
def _loaded(here: ray.ObjectRef, gpu: bool) -> WorkHere:
    work: WorkHere = ray.get(here)
    work.model.to("cuda" if gpu else "cpu")
    return work


@lru_cache(maxsize=1)
def _survey(survey: ray.ObjectRef, paths: ray.ObjectRef) -> tuple[Survey, list[Path]]:
    return ray.get(survey), ray.get(paths)
