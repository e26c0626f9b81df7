"""The features that trainings share: rows in the object store, in an order that owes nothing to names."""

import hashlib
from dataclasses import dataclass

import numpy as np
import ray

from cvgl_ray.config import Config
from cvgl_ray.em.neighbourhood import check_size
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureTable, check_same_dimension
from cvgl_ray.features.views import view_mean


@dataclass(frozen=True)
class TrainingData:
    """Two unlabelled feature tables as trainings share them, in canonical order.

    features: of the query and the reference view, in the object store; centre [2, D]: the views' means;
    digest: a hash of all rows in their order.
    """

    query_ids: list[str]
    reference_ids: list[str]
    features: tuple[ray.ObjectRef, ray.ObjectRef]
    centre: np.ndarray
    digest: str


def share(query: FeatureTable, reference: FeatureTable) -> TrainingData:
    """Put two tables into the object store, once for any number of trainings."""
    check_same_dimension(query, reference)
    query, reference = in_canonical_order(query), in_canonical_order(reference)
    centre = np.stack([view_mean(query.features), view_mean(reference.features)])
    features = ray.put(query.features), ray.put(reference.features)
    return TrainingData(query.image_ids, reference.image_ids, features, centre, data_digest(query, reference))


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


def check_batches(queries: int, references: int, config: Config) -> None:
    """Refuse a batch that so many images cannot fill, before anything starts."""
    fewest = min(queries, references)
    if fewest < 2:
        raise InputError(f"a view has {fewest} usable images; training needs at least two of each view")
    if config.estep.neighbourhood:
        check_size(queries, references)
    if config.estep.rows > references:
        raise InputError(
            f"estep.rows = {config.estep.rows}, but there are {references} references; "
            "lower it, or set 0 for an E-step over all rows"
        )
