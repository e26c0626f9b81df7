"""One local cluster of two CPUs for all tests that need Ray."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import PLACES, configured, write_places

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=200_000_000)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"), [f"{number:04d}" for number in range(PLACES)])


@pytest.fixture(scope="session")
def run(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training on one worker."""
    from cvgl_ray.distributed.stages import train_stage

    output = tmp_path_factory.mktemp("run")
    train_stage(configured(places), output)
    return output
