"""What a direction's images are compared by: frozen features as they are, or what a model makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Dataset
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.evaluation.protocols import Direction
from cvgl_ray.features.table import Table
from cvgl_ray.features.views import QUERY, REFERENCE, row_digests, unit_rows


def direction_embeddings(
    direction: Direction, tables: Mapping[str, Table], dataset: Dataset, model: Retriever | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A direction's queries [Q, V] and gallery [G, V], to be compared by inner product.

    No model: the frozen features as unit rows.
    """
    roles = {dataset.query_view: QUERY, dataset.reference_view: REFERENCE}
    views = [images.rows["view"][0].as_py() for images in (direction.queries, direction.gallery)]
    queries = tables[views[0]].rows(direction.queries.image_ids)
    gallery = tables[views[1]].rows(direction.gallery.image_ids)
    if model is None:
        return torch.from_numpy(unit_rows(queries)), torch.from_numpy(unit_rows(gallery))
    return model.sides(queries, gallery, roles[views[0]])


def queries_trained_on(
    directed: Sequence[Direction],
    tables: Mapping[str, Table],
    trained_on: tuple[np.ndarray, np.ndarray],
    dataset: Dataset,
) -> bool:
    """Whether any image that is asked about was one of the training, by its feature: no label is read.

    trained_on: see `Bundle`.
    """
    known = dict(zip((dataset.query_view, dataset.reference_view), trained_on, strict=True))
    for direction in directed:
        view = direction.queries.rows["view"][0].as_py()
        asked = tables[view].rows(direction.queries.image_ids)
        if np.isin(row_digests(asked), known[view]).any():
            return True
    return False


def with_features(catalog: Catalog, tables: Mapping[str, Table]) -> Catalog:
    """The catalog without the images that were rejected at extraction."""
    known = {image_id for table in tables.values() for image_id in table.image_ids}
    return Catalog(catalog.rows.filter(np.array([image_id in known for image_id in catalog.image_ids])))
