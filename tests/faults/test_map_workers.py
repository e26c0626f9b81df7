"""Workers of a localisation on a map are killed: others do their part, and the places stay the same."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drawn import SMALL, write_map, write_photos
from processes import awaited, named

from cvgl_ray.config import load_config
from cvgl_ray.distributed.map_workers import workers_at
from cvgl_ray.localization.request import Request
from cvgl_ray.localization.run import localize_map

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TITLES = ("Maker", "searched", "fitted")  # of cells by Ray Data, of a search, of fits


def kill(title: str) -> str:
    os.kill(awaited(lambda: named(title), title)[0], signal.SIGKILL)
    return title


def test_killed_workers_change_nothing(cluster: str, tmp_path: Path) -> None:
    request = Request([str(write_map(tmp_path / "map.tif"))], [str(write_photos(tmp_path / "photos"))])
    config = load_config(None, SMALL)
    expected = localize_map(config, request, tmp_path / "here").rows
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(lambda: [kill(title) for title in TITLES])
        rows = localize_map(config, request, tmp_path / "there", workers_at(cluster, False)).rows
        assert killed.result(timeout=1) == list(TITLES)
    for row, other in zip(rows, expected, strict=True):
        assert (row.image_id, row.found) == (other.image_id, other.found)
        here, there = ([one.latitude, one.longitude, one.heading_deg, one.error_m] for one in (other, row))
        assert there == pytest.approx(here, rel=1e-7)
