"""The stages behind the commands: each goes from a configuration and a folder to files in that folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl_ray.bundle import Bundle, load_bundle, save_bundle
from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.evaluate import evaluate
from cvgl_ray.distributed.extract import Extraction, extract
from cvgl_ray.distributed.tensorboard import write_evaluation, write_training
from cvgl_ray.distributed.train import train
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.embedded import queries_trained_on, with_features
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.recipe import check_recipes
from cvgl_ray.features.store import FeatureTable, read_table, select
from cvgl_ray.reports.pictures import final_sheets, round_sheets
from cvgl_ray.reports.projector import project_pairs
from cvgl_ray.storage import run_folder
from cvgl_ray.storage.files import write_atomically, write_json
from cvgl_ray.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Data:
    """A data set's catalog and the features of its images by view."""

    catalog: Catalog
    extraction: Extraction


def extract_stage(config: Config, output: Path | str, address: str = "") -> Data:
    """Bring the features of all images of the data set up to date; name the broken ones.

    output: of this and the other stages, a folder or any URI that pyarrow.fs opens.
    """
    with run_folder.opened(output) as folder:
        return _features(config, folder, address)


def train_stage(config: Config, output: Path | str, address: str = "") -> dict[str, Any]:
    """Extract what is missing, train, leave `output`/bundle, and evaluate where labels exist.

    A run that is already complete returns its metrics at once. Returns metrics.json's tree.
    """
    with run_folder.opened(output) as folder:
        run_folder.claim(folder.path, config)
        complete = folder.path / ".complete"
        if complete.exists():
            return finished(folder.path)
        data = _features(config, folder, address)
        query, reference = training_tables(data, config)
        trained = train(query, reference, config, data.extraction.recipes, folder)
        save_bundle(folder.path / "bundle", trained.bundle, trained.pairs)
        uris = dict(zip(data.catalog.image_ids, data.catalog.uris, strict=True))
        write_training(
            str(folder.path / "tensorboard"),
            round_sheets(trained.examples, uris),
            project_pairs(trained.pairs, query, reference, trained.bundle.adapter, uris),
        )
        report = write_metrics(config, data, trained.bundle, folder.path)
        complete.touch()
        return report


def finished(output: Path) -> dict[str, Any]:
    """metrics.json's tree of a complete run."""
    try:
        report: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{output / 'metrics.json'} of a complete run cannot be read ({error}); remove "
            f"{output / '.complete'} and start the same command again to have it written anew"
        ) from error
    return report


def evaluate_stage(
    config: Config, bundle_folder: Path | None, output: Path | str, address: str = ""
) -> dict[str, Any]:
    """Evaluate a bundle (None: the run's own) on the configured data set.

    Returns and writes metrics.json's tree.
    """
    with run_folder.opened(output) as folder:
        bundle_folder = bundle_folder or folder.path / "bundle"
        bundle = load_bundle(bundle_folder)
        data = _features(config, folder, address)
        check_recipes(bundle.recipes, data.extraction.recipes, bundle_folder)
        return write_metrics(config, data, bundle, folder.path)


def _features(config: Config, folder: RunFolder, address: str) -> Data:
    """As `load_features`, with what an earlier run into the folder extracted."""
    if not (config.features.cache or config.features.table):
        folder.fetch("features")
    return load_features(config, folder.path, address)


def load_features(config: Config, output: Path, address: str) -> Data:
    """The data set's catalog, written to `output`, and its features, extracted where the store lacks them."""
    if not config.dataset.root:
        raise InputError("dataset.root is not set; give the data set's folder with --set dataset.root=DIR")
    dataset = config.dataset
    catalog = layouts.scan(
        dataset.layout, dataset.root, dataset.query_view, dataset.reference_view, dataset.distractors
    )
    write_atomically(output / "catalog.parquet", lambda temporary: catalog.write(str(temporary)))
    session.connect(address)
    if config.features.table:
        return Data(catalog, _foreign_features(config, catalog))
    cache = Path(config.features.cache) if config.features.cache else output / "features"
    return Data(catalog, extract(catalog, config, cache, output / "rejected.parquet"))


def _foreign_features(config: Config, catalog: Catalog) -> Extraction:
    """Features that somebody else extracted, matched to the catalog by image id."""
    found = Extraction()
    for view in (config.dataset.query_view, config.dataset.reference_view):
        ids = catalog.select(view=view).image_ids
        found.tables[view] = select(read_table(config.features.table, view), ids)
        found.recipes[view] = {"source": "features.table", "dimension": found.tables[view].dimension}
    return found


def training_tables(data: Data, config: Config) -> tuple[FeatureTable, FeatureTable]:
    """The query and the reference features to learn from."""
    query, reference = (
        select(data.extraction.tables[view], _trainable(data, view))
        for view in (config.dataset.query_view, config.dataset.reference_view)
    )
    return query, reference


def _trainable(data: Data, view: str) -> list[str]:
    """Ids of a view's training images that have a feature."""
    known = set(data.extraction.tables[view].image_ids)
    images = [name for name in data.catalog.select(view=view, split="train").image_ids if name in known]
    if not images:
        raise InputError(
            f"view {view!r} has no usable training image; training needs both views' train split"
        )
    return images


def write_metrics(config: Config, data: Data, bundle: Bundle, output: Path) -> dict[str, Any]:
    """Write metrics.json and TensorBoard's evaluation; without labels only the label-free scores."""
    report: dict[str, Any] = {"frozen": {}, "adapted": {}, "selection": bundle.scores}
    report["labels_read"] = False  # by training or selection, which take a catalog and tables alone
    report["retrieval"] = config.retrieval.model_dump(mode="json")
    dataset, tables = config.dataset, data.extraction.tables
    labels = layouts.load_labels(dataset.layout, dataset.root, data.catalog)
    report["evaluated_with_labels"] = labels is not None
    sheets = {}
    if labels is not None:
        usable = with_features(data.catalog, tables)
        directed = directions(usable, dataset.query_view, dataset.reference_view)
        report["trained_on_test_images"] = queries_trained_on(directed, tables, bundle.trained_on, dataset)
        model = bundle.retriever(config.retrieval)
        report |= evaluate(data.catalog, labels, tables, dataset, model)
        sheets = final_sheets(data.catalog, labels, tables, dataset, model)
    write_json(output / "metrics.json", report)
    write_evaluation(str(output / "tensorboard"), report, config, sheets)
    return report
