"""The stages behind the commands on places: each goes from a configuration and a folder to files in it.

Those on a map are map_stages'. output: of all of them, a folder or any URI that pyarrow.fs opens. What can be
known to be wrong is found before anything is written, extracted or connected to.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from cvgl_ray.bundle import load_bundle, save_bundle
from cvgl_ray.config import Config
from cvgl_ray.config.differences import load_on_bundle
from cvgl_ray.distributed import session
from cvgl_ray.distributed.alignment import align_data_set, cells_for, why_not_aligned
from cvgl_ray.distributed.data import Data, load_features, load_labels, scan, training_tables
from cvgl_ray.distributed.evaluate import read_metrics, write_metrics
from cvgl_ray.distributed.resources import training_need
from cvgl_ray.distributed.train import train
from cvgl_ray.distributed.trained import Trained
from cvgl_ray.em.batches import check_batches
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.extraction import Extraction
from cvgl_ray.features.recipe import check_recipes
from cvgl_ray.features.table import Table
from cvgl_ray.reports.aligned_pairs import aligned_sheet
from cvgl_ray.reports.pictures import round_sheets
from cvgl_ray.reports.projector import project_pairs
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import write_training
from cvgl_ray.storage import run_folder, run_record
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.filesystem import is_uri
from cvgl_ray.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


def extract_stage(config: Config, output: Path | str, address: str = "") -> Data:
    """Bring the features of all images of the data set up to date; name the broken ones."""
    with run_folder.opened(output) as folder:
        run_record.check_claim(folder.path, "extract", config)
        catalog = scan(config.dataset, config.features.table, config.backbone)
        run_record.claim(folder.path, "extract", config)
        _fetch_features(config, folder)
        config, _ = align_data_set(config, catalog, folder.path, address)
        return load_features(config, folder.path, address, catalog=catalog)


def train_stage(config: Config, output: Path | str, address: str = "") -> dict[str, Any]:
    """Extract what is missing, train, leave `output`/bundle, and evaluate where labels exist.

    A run that is already complete returns its metrics at once. Returns metrics.json's tree.
    """
    with run_folder.opened(output) as folder:
        run_record.check_claim(folder.path, "train", config)
        complete = folder.path / ".complete"
        if complete.exists():
            return read_metrics(folder.path)
        catalog = scan(config.dataset, config.features.table, config.backbone)
        query_images = catalog.select(view=config.dataset.query_view, split="train")
        reference_images = catalog.select(view=config.dataset.reference_view, split="train")
        check_batches(len(query_images), len(reference_images), config.estep)
        why_not_aligned(config, len(query_images), len(reference_images))
        session.check_room(address, [training_need(config.run)])
        run_record.claim(folder.path, "train", config)
        _fetch_features(config, folder)
        config, aligned = align_data_set(config, catalog, folder.path, address)
        data = load_features(config, folder.path, address, catalog=catalog)
        query, reference = training_tables(data, config.dataset)
        session.connect(address)
        trained = train(query, reference, config, data.extraction.recipes, folder, aligned)
        save_bundle(folder.path / "bundle", trained.bundle, trained.pairs, trained.poses())
        _show(trained, data, query, reference, folder.path / "tensorboard")
        judged = load_labels(config.dataset, config.features.table, catalog) is not None
        cells = cells_for(trained.bundle, config, catalog, folder.path, address) if judged else None
        report = write_metrics(config, data, trained.bundle, folder.path, cells)
        complete.touch()
        return report


def _show(trained: Trained, data: Data, query: Table, reference: Table, tensorboard: Path) -> None:
    """What each round retrieved and a sample of pseudo-pairs, for TensorBoard."""
    uris = dict(zip(data.catalog.image_ids, data.catalog.uris, strict=True))
    with shown("the training's pictures"):
        sheets = round_sheets(trained.examples, uris) if any(data.catalog.uris) else {}
        pairs = project_pairs(trained.pairs, query, reference, trained.bundle.adapter, uris)
        sheet = aligned_sheet(trained.aligned, uris, strips=trained.bundle.config.strips)
        write_training(str(tensorboard), sheets, pairs, sheet)


def evaluate_stage(
    bundle_folder: Path | None,
    output: Path | str,
    *,
    config_path: str | Path | None = None,
    overrides: tuple[str, ...] = (),
    address: str = "",
) -> tuple[dict[str, Any], str]:
    """Evaluate a bundle (None: the run's own) on the data set of its configuration or of what changes that.

    In a folder that another command made, all of it goes to the folder "evaluation" below. Returns
    metrics.json's tree and the folder, or URI, that holds it.
    Raises InputError where a change is of what made the bundle.
    """
    bundle_folder = bundle_folder or (None if is_uri(str(output)) else Path(output) / "bundle")
    bundle = load_bundle(bundle_folder) if bundle_folder else None  # before a folder is made
    with run_folder.opened(output) as folder:
        bundle_folder = bundle_folder or folder.path / "bundle"
        bundle = bundle or load_bundle(bundle_folder)
        config = load_on_bundle(bundle.config, bundle_folder, config_path, overrides)
        own = run_record.stage_of(folder.path) in ("", "evaluate")
        results = folder.path if own else folder.path / "evaluation"
        catalog = scan(config.dataset, config.features.table, config.backbone)
        directions(catalog, config.dataset.query_view, config.dataset.reference_view)
        results.mkdir(exist_ok=True)
        run_record.claim(
            results, "evaluate", config, {"bundle": file_digest((bundle_folder / "config.json").read_bytes())}
        )
        if load_labels(config.dataset, config.features.table, catalog) is None:
            data, cells = Data(catalog, Extraction()), None
        else:
            _fetch_features(config, folder)
            data = load_features(
                config,
                results,
                address,
                catalog=catalog,
                cache=folder.path / "features",
                check=partial(check_recipes, bundle.recipes, bundle=bundle_folder),
            )
            session.connect(address)
            cells = cells_for(bundle, config, catalog, folder.path, address)
        report = write_metrics(config, data, bundle, results, cells)
    return report, str(output) if own else f"{output}/evaluation"


def _fetch_features(config: Config, folder: RunFolder) -> None:
    """Bring here what an earlier run into the folder extracted, where that is kept elsewhere."""
    if not (config.features.cache or config.features.table):
        for kept in ("features", "variants", "cells"):
            folder.fetch(kept)
