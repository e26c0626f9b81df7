"""Evaluation over the cluster: one task per model and direction, features shared through the object store."""

import json
from pathlib import Path
from typing import Any

import ray

from cvgl_ray.bundle import Bundle
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Config, Dataset
from cvgl_ray.distributed.data import Data, load_labels
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.evaluation.embedded import direction_embeddings, with_features
from cvgl_ray.evaluation.metrics import Metrics
from cvgl_ray.evaluation.protocols import directions, evaluate_direction
from cvgl_ray.features.store import FeatureTable
from cvgl_ray.progress import progress
from cvgl_ray.reports.pictures import final_sheets
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import write_evaluation
from cvgl_ray.storage.files import write_json

METRICS = "metrics.json"


def write_metrics(config: Config, data: Data, bundle: Bundle, output: Path) -> dict[str, Any]:
    """Write metrics.json and TensorBoard's evaluation; without labels only the label-free scores."""
    labels = load_labels(config, data.catalog)
    report: dict[str, Any] = {
        "frozen": {},
        "adapted": {},
        "labels_read": False,  # by training or selection, which take a catalog and tables: neither has any
        "evaluated_with_labels": labels is not None,
        "selection": bundle.scores,
        "retrieval": config.retrieval.model_dump(mode="json"),
    }
    dataset, tables = config.dataset, data.extraction.tables
    if labels is not None:
        model = bundle.retriever(config.retrieval)
        report |= evaluate(data.catalog, labels, tables, dataset, model)
    write_json(output / METRICS, report)
    with shown("the evaluation's charts"):
        sheets = {}
        if labels is not None and any(data.catalog.uris):  # a table of features has no pictures
            sheets = final_sheets(data.catalog, labels, tables, dataset, model)
        write_evaluation(str(output / "tensorboard"), report, config, sheets)
    return report


def read_metrics(output: Path) -> dict[str, Any]:
    """metrics.json's tree of a complete run."""
    report: dict[str, Any] = json.loads((output / METRICS).read_text())
    return report


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
