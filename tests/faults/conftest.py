"""One local cluster of two CPUs for a module whose tests share it, and a disk that is soon full."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ENVIRONMENT


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address."""
    import ray

    os.environ.update(ENVIRONMENT)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=200_000_000,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 150 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here, which takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
