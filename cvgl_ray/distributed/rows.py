"""Feature rows on their way from tables into the object store; the driver holds ids and never a row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from cvgl_ray.distributed.resources import this_node
from cvgl_ray.em.retrieval import bank_samples
from cvgl_ray.features.canonical import DataDigest, canonical_order
from cvgl_ray.features.table import Table, check_same_dimension, select
from cvgl_ray.features.views import row_digests, view_mean


@dataclass(frozen=True)
class TrainingData:
    """Two unlabelled feature tables as trainings share them, in canonical order.

    features: of the query and the reference view [N, D] float16, in the object store; centre [2, D]: the
    views' means; row_digests: of either view's rows [N] uint64; banked: the rows of either view that a
    bundle's banks are made of; digest: a hash of all rows in their order.
    """

    query_ids: list[str]
    reference_ids: list[str]
    features: tuple[ray.ObjectRef, ray.ObjectRef]
    centre: np.ndarray
    row_digests: tuple[np.ndarray, np.ndarray]
    banked: tuple[np.ndarray, np.ndarray]
    digest: str


def share(query: Table, reference: Table) -> TrainingData:
    """Put two tables into the object store, once for any number of trainings.

    Rows are read by a task on this node, where a store's files are. Should they be lost, Ray does it again.
    """
    check_same_dimension(query, reference)
    task = here(_in_canonical_order, num_returns=3)
    query_rows, reference_rows, known = task.remote(query, reference)
    return TrainingData(features=(query_rows, reference_rows), **ray.get(known))


def _in_canonical_order(query: Table, reference: Table) -> Iterator[Any]:
    """Either view's rows, one view at a time in memory, then what a driver needs to know of them."""
    whole, ids, centre, digests, banked = DataDigest(), [], [], [], []
    for table, sample in zip((query, reference), bank_samples(len(query), len(reference)), strict=True):
        ids.append(canonical_order(table))
        rows = table.rows(ids[-1])
        whole.add(rows)
        centre.append(view_mean(rows))
        digests.append(row_digests(rows))
        banked.append(rows[sample])
        yield rows
    yield {
        "query_ids": ids[0],
        "reference_ids": ids[1],
        "centre": np.stack(centre),
        "row_digests": tuple(digests),
        "banked": tuple(banked),
        "digest": whole.hexdigest(),
    }


def in_store(tables: Mapping[str, Table]) -> dict[str, ray.ObjectRef]:
    """Each table as a FeatureTable in the object store, read by a task on this node."""
    task = here(select)
    return {view: task.remote(table) for view, table in tables.items()}


def here(function: Callable[..., Any], **options: Any) -> Any:
    """A task of this node, which reads."""
    task: Any = ray.remote(function)
    return task.options(**this_node(), **options)
