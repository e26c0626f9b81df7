"""Digests of many files, over the cluster. Imports no torch: each task's process would wait for it."""

from collections.abc import Sequence

import ray

from cvgl_ray.progress import progress
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.filesystem import read_bytes

FILES_A_TASK = 512


def file_digests(uris: Sequence[str]) -> list[str]:
    """A digest of each file's bytes; of a file that cannot be read, "!" and the reason."""
    hashing = ray.remote(num_cpus=1)(_hash_files)
    parts = [uris[start : start + FILES_A_TASK] for start in range(0, len(uris), FILES_A_TASK)]
    tasks = [hashing.remote(part) for part in parts]
    found: list[str] = []
    with progress("hashing", len(uris), "images") as advance:
        for task in tasks:
            digests = ray.get(task)
            found += digests
            advance(len(digests))
    return found


def _hash_files(uris: Sequence[str]) -> list[str]:
    found = []
    for uri in uris:
        try:
            found.append(file_digest(read_bytes(uri)))
        except OSError as error:
            found.append(f"!the file cannot be read ({error})")
    return found
