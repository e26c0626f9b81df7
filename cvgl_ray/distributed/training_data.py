"""What trainings share: two unlabelled feature tables, once in the object store."""

from dataclasses import dataclass

import numpy as np
import ray

from cvgl_ray.features.canonical import data_digest, in_canonical_order
from cvgl_ray.features.table import FeatureTable, check_same_dimension
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
