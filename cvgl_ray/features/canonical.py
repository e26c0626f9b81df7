"""Feature tables in an order that owes nothing to the names of files and folders."""

import hashlib

import numpy as np

from cvgl_ray.features.table import FeatureTable


def in_canonical_order(table: FeatureTable) -> FeatureTable:
    """Rows sorted by a hash of their feature, so that no file or folder name reaches the training."""
    keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in table.features]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return FeatureTable([table.image_ids[i] for i in order], table.features[order])


def data_digest(query: FeatureTable, reference: FeatureTable) -> str:
    """A hash of all feature rows in their order; a checkpoint's pseudo-labels are row numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for table in (query, reference):
        digest.update(str(table.features.shape).encode())
        digest.update(np.ascontiguousarray(table.features).data)
    return digest.hexdigest()
