"""`localize --map` on a cluster finds what one process finds; an interrupted run goes on."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from drawn import SMALL, write_map, write_photos
from tiny import QUICK_RAY

from cvgl_ray.alignment.ground_fit import Refined
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.config import load_config
from cvgl_ray.distributed import cell_server
from cvgl_ray.distributed.map_work import MapWork
from cvgl_ray.distributed.map_workers import workers_at
from cvgl_ray.errors import InputError, root_cause
from cvgl_ray.features.parts import read_digests
from cvgl_ray.localization import survey as surveys
from cvgl_ray.localization.cell_bundle import load_cell_bundle
from cvgl_ray.localization.request import Request
from cvgl_ray.localization.run import localize_map, work_here
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.work import Candidates, WorkHere
from cvgl_ray.reports.location import Location

CONFIG = load_config(None, SMALL)
CUT = surveys.cut


class StoppedError(Exception):
    """A run was ended on purpose."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_map(folder / "map.tif")
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def asked(world: Path) -> Request:
    return Request([str(world / "map.tif")], [str(world / "photos")])


@pytest.fixture(scope="module")
def here(asked: Request, world: Path) -> Sequence[Location]:
    """What one process finds."""
    return localize_map(CONFIG, asked, world / "here", work_here).rows


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of the map, several parts of the photos."""
    monkeypatch.setattr("cvgl_ray.distributed.map_work.PHOTOS_SEARCHED", 3)
    monkeypatch.setattr("cvgl_ray.distributed.map_work.PHOTOS_FITTED", 3)
    monkeypatch.setattr("cvgl_ray.localization.job.cut", lambda *sizes: CUT(*sizes, side_cells=40))


def assert_same(rows: Sequence[Location], others: Sequence[Location]) -> None:
    for one, other in zip(rows, others, strict=True):
        assert (one.image_id, one.found) == (other.image_id, other.found)
        for name in ("latitude", "longitude", "heading_deg", "ground_width_m", "confidence"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-7), name


def test_a_cluster_finds_what_one_process_finds(
    asked: Request, world: Path, tmp_path: Path, here: Sequence[Location], small_parts: None
) -> None:
    rows = localize_map(CONFIG, asked, tmp_path / "run", workers_at("", False)).rows
    assert all(row.found for row in rows)
    assert_same(rows, here)
    theirs, ours = (load_cell_bundle(folder / "bundle") for folder in (tmp_path / "run", world / "here"))
    assert theirs.recipe == ours.recipe
    assert (theirs.adapter.attenuation - ours.adapter.attenuation).abs().max() < 1e-5
    assert not torch.equal(ours.adapter.attenuation, torch.eye(len(ours.adapter.attenuation)))


def test_a_cluster_finds_the_same_on_a_large_map(
    asked: Request, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvgl_ray.localization.plan.LARGE_PX", 1.0)
    elsewhere = replace(asked, cache=str(tmp_path / "cells"))
    there = localize_map(CONFIG, elsewhere, tmp_path / "there", workers_at("", False)).rows
    assert_same(there, localize_map(CONFIG, elsewhere, tmp_path / "here", work_here).rows)


def test_a_run_that_is_killed_goes_on_where_it_was(
    cluster: str, asked: Request, tmp_path: Path, here: Sequence[Location]
) -> None:
    """The map, the photos and the run's folder are named by URIs, as they are in a store."""
    settings = [part for setting in SMALL for part in ("--set", setting)]
    maps, photos = ([f"file://{path}" for path in paths] for paths in (asked.maps, asked.photos))
    command = [sys.executable, "-m", "cvgl_ray", "localize", "--map", *maps, "--query", *photos]
    output = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "--output", f"file://{output}", "--address", cluster, *settings],
        env=os.environ | QUICK_RAY | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and not list(output.rglob("part-*.parquet")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, printed
    kept = {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")}
    by_uri = replace(asked, maps=maps, photos=photos)
    rows = localize_map(CONFIG, by_uri, f"file://{output}", workers_at("", False)).rows
    assert_same(rows, here)
    parts = {path: path.stat().st_mtime_ns for path in output.rglob("part-*.parquet")}
    assert kept.items() <= parts.items()
    made = [digest for path in parts for digest in read_digests(path)]
    sides = len({path.parent for path in parts if path.parts[-3] == "photo"})
    assert Counter(made).most_common(1)[0][1] == sides  # nothing was made twice


def test_cells_that_a_node_does_not_see_are_read_for_it(
    asked: Request, world: Path, tmp_path: Path, here: Sequence[Location]
) -> None:
    """On one machine all nodes see them: here the reader is asked as if they did not."""
    seen: list[Survey] = []

    class Watched(WorkHere):
        def search(self, survey: Survey, adapter: CellAdapter) -> list[Peaks]:
            seen.append(survey)
            server: Any = ray.remote(num_cpus=0)(cell_server.CellServer).remote(survey)
            served = cell_server.served(survey, server)
            own, asked = (
                surveys.shard_peaks(s.of(slice(2, 5)), s.shards[0], adapter) for s in (survey, served)
            )
            for one, other in zip(own, asked, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0)
            raise StoppedError

    elsewhere = replace(asked, cache=str(world / "here/cells"))
    with pytest.raises(StoppedError):
        localize_map(CONFIG, elsewhere, tmp_path / "run", lambda model, geomap, *_: Watched(model, geomap))
    assert cell_server.readable(seen[0], [tmp_path / "none"], "a server") is not seen[0]
    assert cell_server.readable(seen[0], seen[0].map_files.paths, "a server") is seen[0]


def test_what_a_worker_cannot_read_or_a_cluster_cannot_give_is_one_sentence(
    asked: Request, world: Path, tmp_path: Path
) -> None:
    class Deaf(MapWork):
        """Asks for the fits of a photo that only this process has seen."""

        def fits(self, asked: Sequence[Candidates], attenuation: torch.Tensor) -> Iterator[list[Refined]]:
            gone = [Candidates(one.photo._replace(uri="/none/a.jpg"), one.poses) for one in asked]
            return super().fits(gone, attenuation)

    elsewhere = replace(asked, cache=str(world / "here/cells"))
    with pytest.raises(InputError) as error:
        localize_map(
            CONFIG, elsewhere, tmp_path / "run", lambda *given: Deaf(ray.put(WorkHere(*given[:2])), False)
        )
    assert "'/none/a.jpg' was there and cannot be read now" in str(root_cause(error.value))
    with pytest.raises(InputError, match=r"the localisation with run.gpu = true asks for 1 x \(1 GPU\)"):
        workers_at("", True)
