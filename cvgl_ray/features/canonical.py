"""Feature tables in an order that owes nothing to the names of files and folders."""

import hashlib

import numpy as np

from cvgl_ray.features.table import Table


def canonical_order(table: Table) -> list[str]:
    """Image ids sorted by a hash of their feature, so that no file or folder name reaches the training."""
    keys: dict[str, bytes] = {}
    for ids, rows in table.blocks():
        hashes = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
        keys |= dict(zip(ids, hashes, strict=True))
    return sorted(table.image_ids, key=keys.__getitem__)


class DataDigest:
    """A hash of all rows in their order, view by view; a checkpoint's pseudo-labels are row numbers."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, features: np.ndarray) -> None:
        """Take the next view's rows [N, D]."""
        self._digest.update(str(features.shape).encode())
        self._digest.update(np.ascontiguousarray(features).data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
