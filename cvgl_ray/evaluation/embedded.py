"""What a direction's images are compared by: frozen features as they are, or a model's embeddings."""

from collections.abc import Mapping

import numpy as np
import torch

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Dataset
from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.embedding import embed
from cvgl_ray.em.views import QUERY, REFERENCE, unit_rows
from cvgl_ray.evaluation.protocols import Direction
from cvgl_ray.features.store import FeatureTable, select


def direction_embeddings(
    direction: Direction, tables: Mapping[str, FeatureTable], dataset: Dataset, adapter: ViewCentred | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of a direction's queries [Q, W] and gallery [G, W]; no adapter: the frozen features."""
    roles = {dataset.query_view: QUERY, dataset.reference_view: REFERENCE}
    sides = []
    for images in (direction.queries, direction.gallery):
        view = images.rows["view"][0].as_py()
        rows = select(tables[view], images.image_ids).features
        sides.append(
            torch.from_numpy(unit_rows(rows) if adapter is None else embed(adapter, rows, roles[view]))
        )
    return sides[0], sides[1]


def with_features(catalog: Catalog, tables: Mapping[str, FeatureTable]) -> Catalog:
    """The catalog without the images that were rejected at extraction."""
    known = {image_id for table in tables.values() for image_id in table.image_ids}
    return Catalog(catalog.rows.filter(np.array([image_id in known for image_id in catalog.image_ids])))
