"""All tests here run on the shared cluster; some look at one finished training."""

from pathlib import Path

import pytest
from tiny import PLACES, configured, write_places


@pytest.fixture(scope="session", autouse=True)
def on_the_cluster(cluster: str) -> None:
    pass


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"), [f"{number:04d}" for number in range(PLACES)])


@pytest.fixture(scope="session")
def run(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training on one worker."""
    from cvgl_ray.stages import train_stage

    output = tmp_path_factory.mktemp("run")
    train_stage(configured(places), output)
    return output
