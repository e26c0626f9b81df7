"""One local cluster of two CPUs for all tests that need Ray; who wants it asks for it by name."""

import os
from collections.abc import Iterator

import pytest
from tiny import QUICK_RAY


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address."""
    import ray

    os.environ.update(QUICK_RAY)
    ray.init(
        address="local",  # whatever else runs on this machine
        num_cpus=2,
        include_dashboard=True,  # Ray Train asks it what a run that was killed had reserved
        logging_level="ERROR",
        log_to_driver=False,
        object_store_memory=200_000_000,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
