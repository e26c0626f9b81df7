"""One local cluster of two CPUs for a module whose tests share it."""

import os
from collections.abc import Iterator

import pytest
from processes import ENVIRONMENT


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    os.environ.update(ENVIRONMENT)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=200_000_000)
    yield
    ray.shutdown()
