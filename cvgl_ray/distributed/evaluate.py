"""Evaluation over the cluster: one task a model and direction, features shared through the object store."""

import ray

from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Dataset
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.evaluation.embedded import direction_embeddings, with_features
from cvgl_ray.evaluation.metrics import Metrics
from cvgl_ray.evaluation.protocols import directions, evaluate_direction
from cvgl_ray.features.store import FeatureTable
from cvgl_ray.progress import progress


def evaluate(
    catalog: Catalog,
    labels: Labels,
    tables: dict[str, FeatureTable],
    dataset: Dataset,
    model: Retriever,
) -> dict[str, dict[str, Metrics]]:
    """Figures of the frozen features and of the adapted model: {"frozen" | "adapted": {direction: ...}}.

    Images without a feature (rejected ones) take no part.
    """
    return evaluate_models(catalog, labels, tables, dataset, {"frozen": None, "adapted": model})


def evaluate_models(
    catalog: Catalog,
    labels: Labels,
    tables: dict[str, FeatureTable],
    dataset: Dataset,
    models: dict[str, Retriever | None],
) -> dict[str, dict[str, Metrics]]:
    """Figures of models (None: the frozen features) by their names: {name: {direction: ...}}."""
    usable = with_features(catalog, tables)
    shared = ray.put((usable, labels, tables, dataset))
    directed = directions(usable, dataset.query_view, dataset.reference_view)
    task = ray.remote(num_cpus=1)(_evaluate_one)
    pending = {
        (name, direction.name): task.remote(shared, model, number)
        for name, model in models.items()
        for number, direction in enumerate(directed)
    }
    report: dict[str, dict[str, Metrics]] = {name: {} for name in models}
    with progress("evaluating", len(pending), "rankings") as advance:
        for (name, direction_name), result in pending.items():
            report[name][direction_name] = ray.get(result)
            advance(1)
    return report


def _evaluate_one(
    shared: tuple[Catalog, Labels, dict[str, FeatureTable], Dataset], model: Retriever | None, number: int
) -> Metrics:
    catalog, labels, tables, dataset = shared
    direction = directions(catalog, dataset.query_view, dataset.reference_view)[number]
    query, gallery = direction_embeddings(direction, tables, dataset, model)
    return evaluate_direction(direction, query, gallery, labels)
