"""The procedural world on disk, in University-1652's layout."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.progress import progress
from cvgl_ray.synthetic.flight import render_place
from cvgl_ray.synthetic.sensor import Picture

Item = TypeVar("Item")

GENERATOR = 1  # to be raised whenever the same parameters would give other pictures
MARKER = "world.json"
NAMES = 100_000  # place folders are called 00000 to 99999
LIMITS = {
    "places": (1, NAMES // 3),
    "test_places": (1, NAMES // 3),
    "distractors": (0, NAMES // 3),
    "views": (1, 99),
    "image_size": (16, 2048),
    "seed": (0, 2**63 - 1),
    "processes": (1, 1024),
}


@dataclass(frozen=True)
class Job:
    """One place to write, under one or several folders for each view."""

    root: Path
    seed: int
    index: int
    views: int
    image_size: int
    drone: tuple[str, ...]
    satellite: tuple[str, ...]


def write_world(
    root: Path,
    *,
    places: int,
    test_places: int,
    views: int = 4,
    image_size: int = 256,
    seed: int = 0,
    processes: int = 1,
    distractors: int = 0,
) -> None:
    """Write train/ with `places` places and test/ with `test_places` others, `views` drone pictures each.

    Distractors are further places that only the galleries of test/ hold. The files are the same bytes for the
    same arguments, whatever `processes`, and a place does not change when more places are asked for. A world
    that is already there is left alone, an interrupted one is finished; `world.json` tells which.

    Raises InputError for a number out of range, and if `root` holds anything but this very world.
    """
    parameters = {
        "generator": GENERATOR,
        "places": places,
        "test_places": test_places,
        "distractors": distractors,
        "views": views,
        "image_size": image_size,
        "seed": seed,
    }
    check_range({**parameters, "processes": processes}, LIMITS)
    if is_complete(root, parameters):
        return
    with begun(root, parameters):
        jobs = list(_jobs(root, places, test_places, distractors, views, image_size, seed))
        write_places(_write_place, jobs, processes)


@contextmanager
def begun(root: Path, parameters: dict[str, int]) -> Iterator[None]:
    """Mark a world as begun, and as complete once all of the block is done."""
    write_bytes(root / MARKER, _marker(parameters, complete=False))
    yield
    write_bytes(root / MARKER, _marker(parameters, complete=True))


def write_places(write: Callable[[Item], None], jobs: list[Item], processes: int) -> None:
    """Write all places, in so many processes."""
    with progress("rendering", len(jobs), "places") as advance:
        for _ in _in_processes(write, jobs, processes):
            advance(1)


def _in_processes(write: Callable[[Item], None], jobs: list[Item], processes: int) -> Iterator[None]:
    if processes == 1:
        yield from map(write, jobs)
        return
    # Spawned, not forked: the caller may hold threads and locks.
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, jobs)


def check_range(numbers: dict[str, int], limits: dict[str, tuple[int, int]]) -> None:
    """Raise InputError for a number outside its limits, lowest and highest by name."""
    for name, (low, high) in limits.items():
        if not low <= numbers[name] <= high:
            raise InputError(f"{name} is {numbers[name]}, give a whole number from {low} to {high}")


def is_complete(root: Path, parameters: dict[str, int]) -> bool:
    """Whether the world of these parameters is all there; InputError if something else is."""
    if not (root / MARKER).is_file():
        if root.is_file() or (root.is_dir() and any(root.iterdir())):
            raise InputError(f"{str(root)!r} exists and holds no {MARKER}, give a new or an empty folder")
        return False
    try:
        found = json.loads((root / MARKER).read_text())
        found_parameters, complete = found["parameters"], found["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(root / MARKER)!r} is damaged, delete its folder or give another") from error
    if found_parameters != parameters:
        raise InputError(
            f"{str(root)!r} holds a world of {found_parameters}, but {parameters} were asked for,"
            " delete it or give another folder"
        )
    return bool(complete)


def _marker(parameters: dict[str, int], *, complete: bool) -> bytes:
    return (json.dumps({"complete": complete, "parameters": parameters}, indent=2) + "\n").encode()


def _jobs(
    root: Path, places: int, test_places: int, distractors: int, views: int, image_size: int, seed: int
) -> Iterator[Job]:
    """The places to write; each kind takes every third index, so that none moves."""
    gallery = ("test/gallery_drone", "test/gallery_satellite")
    query = ("test/query_drone", "test/query_satellite")
    kinds = (
        (places, ("train/drone",), ("train/satellite",)),
        (test_places, (query[0], gallery[0]), (query[1], gallery[1])),
        (distractors, gallery[:1], gallery[1:]),
    )
    names = np.random.default_rng(seed).permutation(NAMES)
    for first, (count, drone, satellite) in enumerate(kinds):
        for index in range(first, 3 * count, 3):
            name = f"{names[index]:05d}"
            folders = [tuple(f"{parent}/{name}" for parent in parents) for parents in (drone, satellite)]
            yield Job(root, seed, index, views, image_size, folders[0], folders[1])


def _write_place(job: Job) -> None:
    """Render a place and write it, unless all of its files are there."""
    drone = [
        [job.root / folder / f"image-{view + 1:02d}.jpeg" for folder in job.drone]
        for view in range(job.views)
    ]
    satellite = [job.root / folder / f"{Path(folder).name}.jpg" for folder in job.satellite]
    if all(path.is_file() for paths in (*drone, satellite) for path in paths):
        return
    nadir, obliques = render_place(job.seed, job.index, job.views, job.image_size)
    for paths, picture in zip((*drone, satellite), (*obliques, nadir), strict=True):
        encoded = jpeg(picture)
        for path in paths:
            write_bytes(path, encoded)


def jpeg(picture: Picture) -> bytes:
    """A picture as a file's bytes."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """Write all or nothing: an interrupted run leaves no half file under the final name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    os.replace(partial, path)
