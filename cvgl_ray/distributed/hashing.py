"""Digests of many files, over the cluster. Imports no torch: each task's process would wait for it."""

from collections.abc import Sequence

import ray

from cvgl_ray.progress import progress
from cvgl_ray.storage.known_files import hash_files

FILES_PER_TASK = 512


def file_digests(uris: Sequence[str]) -> list[str]:
    """A digest of each file's bytes; of a file that cannot be read, "!" and the reason."""
    hashing = ray.remote(num_cpus=1)(hash_files)
    parts = [uris[start : start + FILES_PER_TASK] for start in range(0, len(uris), FILES_PER_TASK)]
    tasks = [hashing.remote(part) for part in parts]
    found: list[str] = []
    with progress("hashing", len(uris), "images") as advance:
        for task in tasks:
            digests = ray.get(task)
            found += digests
            advance(len(digests))
    return found
