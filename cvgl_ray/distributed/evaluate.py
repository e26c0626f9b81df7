"""Evaluation over the cluster: one task per model and direction, features shared through the object store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from cvgl_ray.bundle import Bundle
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Config, Dataset
from cvgl_ray.distributed.align import AlignedData
from cvgl_ray.distributed.aligned_evaluation import aligned_sides
from cvgl_ray.distributed.data import Data, load_labels
from cvgl_ray.distributed.rows import here, in_store
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.evaluation.embedded import direction_embeddings, queries_trained_on, with_features
from cvgl_ray.evaluation.metrics import Metrics
from cvgl_ray.evaluation.protocols import Direction, Retrieved, directions, examples, judge_direction
from cvgl_ray.evaluation.query_table import RANKS, query_table, write_query_table
from cvgl_ray.features.table import FeatureTable, Table
from cvgl_ray.progress import progress
from cvgl_ray.reports.pictures import final_sheet
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import write_evaluation
from cvgl_ray.storage.files import write_json

METRICS = "metrics.json"


def write_metrics(
    config: Config, data: Data, bundle: Bundle, output: Path, cells: AlignedData | None = None
) -> dict[str, Any]:
    """Write metrics.json and TensorBoard's evaluation; without labels only the label-free scores.

    cells: of the images, where the bundle has learned to align them.
    """
    labels = load_labels(config.dataset, config.features.table, data.catalog)
    report: dict[str, Any] = {
        "frozen": {},
        "adapted": {},
        "labels_read": False,  # by training or selection, which take a catalog and tables: neither has any
        "evaluated_with_labels": labels is not None,
        "selection": bundle.scores,
        "retrieval": config.retrieval.model_dump(mode="json"),
    }
    retrieved: dict[str, list[Retrieved]] = {}
    if labels is not None:
        dataset, tables = config.dataset, data.extraction.tables
        model = bundle.retriever(config.retrieval)
        usable, rows = with_features(data.catalog, tables), in_store(tables)
        figures, retrieved, ranks = _evaluated_both(usable, labels, rows, dataset, model)
        directed = directions(usable, dataset.query_view, dataset.reference_view)
        if cells is not None:
            sides = aligned_sides(data, bundle, cells, config.alignment, config.retrieval.neighbours)
            figures["aligned"] = {}
            for direction, query, gallery in sides:
                found, results = judge_direction(direction, query, gallery, labels)
                figures["aligned"][direction.name] = found
                ranks.append(query_table("aligned", direction, results))
        write_query_table(output / RANKS, ranks)
        task = here(_trained_on)
        trained_on = ray.get(task.remote(directed, bundle.trained_on, dataset, list(rows), *rows.values()))
        report |= {**figures, "trained_on_test_images": trained_on}
    write_json(output / METRICS, report)
    with shown("the evaluation's charts"):
        pictures = any(data.catalog.uris)  # a table of features has none
        sheets = {name: final_sheet(each) for name, each in retrieved.items() if pictures}
        rounds = int(bundle.scores.get("rounds") or config.mstep.rounds)
        write_evaluation(str(output / "tensorboard"), report, rounds, sheets)
    return report


def read_metrics(output: Path) -> dict[str, Any]:
    """metrics.json's tree of a complete run."""
    report: dict[str, Any] = json.loads((output / METRICS).read_text())
    return report


def _evaluated_both(
    usable: Catalog,
    labels: Labels,
    rows: Mapping[str, ray.ObjectRef],
    dataset: Dataset,
    model: Retriever,
) -> tuple[dict[str, dict[str, Metrics]], dict[str, list[Retrieved]], list[pa.Table]]:
    """Figures of the frozen features and of the adapted model, {"frozen" | "adapted": {direction: ...}}.

    With them, by direction, a few of the adapted model's retrievals, and tables of the results of each query.
    usable: the images that have a feature; rows: of them, see `rows.in_store`.
    """
    found = _evaluated(usable, labels, rows, dataset, {"frozen": None, "adapted": model})
    few = {direction: retrieved for direction, (_, retrieved, _) in found["adapted"].items()}
    return _figures(found), few, [ranks for each in found.values() for _, _, ranks in each.values()]


def evaluate_models(
    catalog: Catalog,
    labels: Labels,
    tables: Mapping[str, Table],
    dataset: Dataset,
    models: dict[str, Retriever | None],
) -> dict[str, dict[str, Metrics]]:
    """Figures of models (None: the frozen features) by their names: {name: {direction: ...}}.

    Images without a feature (rejected ones) take no part.
    """
    usable = with_features(catalog, tables)
    return _figures(_evaluated(usable, labels, in_store(tables), dataset, models))


_One = tuple[Metrics, list[Retrieved], pa.Table]
_Found = dict[str, dict[str, _One]]  # by model and direction


def _figures(found: _Found) -> dict[str, dict[str, Metrics]]:
    return {
        name: {direction: figures for direction, (figures, _, _) in by_direction.items()}
        for name, by_direction in found.items()
    }


def _evaluated(
    usable: Catalog,
    labels: Labels,
    rows: Mapping[str, ray.ObjectRef],
    dataset: Dataset,
    models: dict[str, Retriever | None],
) -> _Found:
    shared = ray.put((usable, labels, dataset, list(rows)))
    directed = directions(usable, dataset.query_view, dataset.reference_view)
    task = ray.remote(num_cpus=1)(_evaluate_one)
    pending = {
        (name, direction.name): task.remote(shared, name, model, number, *rows.values())
        for name, model in models.items()
        for number, direction in enumerate(directed)
    }
    found: _Found = {name: {} for name in models}
    with progress("evaluating", len(pending), "rankings") as advance:
        for (name, direction_name), result in pending.items():
            found[name][direction_name] = ray.get(result)
            advance(1)
    return found


def _evaluate_one(
    shared: tuple[Catalog, Labels, Dataset, list[str]],
    name: str,
    model: Retriever | None,
    number: int,
    *rows: FeatureTable,
) -> _One:
    catalog, labels, dataset, views = shared
    tables = dict(zip(views, rows, strict=True))
    direction = directions(catalog, dataset.query_view, dataset.reference_view)[number]
    query, gallery = direction_embeddings(direction, tables, dataset, model)
    figures, results = judge_direction(direction, query, gallery, labels)
    few = examples(direction, query, gallery, labels) if model else []
    return figures, few, query_table(name, direction, results)


def _trained_on(
    directed: list[Direction],
    known: tuple[np.ndarray, np.ndarray],
    dataset: Dataset,
    views: list[str],
    *rows: FeatureTable,
) -> bool:
    return queries_trained_on(directed, dict(zip(views, rows, strict=True)), known, dataset)
