"""A flight localised on a map, end to end: into a folder, or for a notebook as rows."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cvgl_ray.config import Config, load_config
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.truth import read_truth
from cvgl_ray.features.cell_model import CellModel, build_cell_model, cell_recipe
from cvgl_ray.features.recipe import check_backbone
from cvgl_ray.localization.cell_bundle import CellBundle, check_recipe, load_cell_bundle, save_cell_bundle
from cvgl_ray.localization.charts import write_charts
from cvgl_ray.localization.inputs import OWN_GPS, Inputs, check_truth, load_truth, open_inputs, truth_notes
from cvgl_ray.localization.job import Localized, localize_photos
from cvgl_ray.localization.notes import outcome_notes, parameters
from cvgl_ray.localization.outputs import (
    check_kinds,
    figures,
    write_georeferenced,
    write_report,
    write_tables,
)
from cvgl_ray.localization.plan import is_large, searched_headings, searched_scales
from cvgl_ray.localization.priors import allowed_poses
from cvgl_ray.localization.request import Answer, Request
from cvgl_ray.localization.rows import locations
from cvgl_ray.localization.work import Work, WorkHere
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.maps.video import holds_videos
from cvgl_ray.reports.tensorboard import configuration_table
from cvgl_ray.storage import run_folder, run_record
from cvgl_ray.storage.files import file_digest, write_json
from cvgl_ray.storage.filesystem import is_uri

log = logging.getLogger(__name__)

# By the model, on the CPU; the map; run.gpu.
Workers = Callable[[CellModel, GeoMap, bool], Work]


def work_here(model: CellModel, geomap: GeoMap, gpu: bool) -> Work:
    """All in this process. Raises InputError for a GPU that there is not."""
    if gpu:
        if not torch.cuda.is_available():
            raise InputError("run.gpu is true, and this machine has no GPU that torch sees: leave it out")
        model.to("cuda")
    return WorkHere(model, geomap)


def load_map_config(
    path: str | Path | None = None, overrides: tuple[str, ...] = (), bundle: Path | None = None
) -> Config:
    """The configuration, on a bundle's backbone and cells where one is given."""
    base = None
    if bundle is not None:
        known = load_cell_bundle(bundle)
        base = Config(backbone=known.backbone, cells=known.cells)
    return load_config(path, overrides, base)


def localize_map(
    config: Config, request: Request, output: Path | str, workers: Workers = work_here
) -> Answer:
    """Localise photos on a map and leave locations.csv, .geojson, report.html, metrics.json and a bundle.

    What can be refused is refused before a model is made, and before there is a folder. Where there are
    videos, whose frames are written to it, it is held first and is no other run's. Raises InputError.
    """
    frames = None if is_uri(str(output)) else Path(output) / "frames"
    inputs = None if frames and holds_videos(request.photos) else _checked(config, request)
    bundle = None if request.bundle is None else load_cell_bundle(request.bundle)
    with run_folder.opened(output) as folder:
        more = {"crs": request.crs}
        if request.bundle is not None:
            more["bundle"] = file_digest((request.bundle / "config.json").read_bytes())
        run_record.check_claim(folder.path, "localize", config, more)
        inputs = inputs or _checked(config, request, frames)
        model, recipe = _model(config, bundle)
        run_record.claim(folder.path, "localize", config, more)
        cells = Path(request.cache) if request.cache else folder.path / "cells"
        if not request.cache:
            folder.fetch("cells")
        done = _localized(config, inputs, cells, bundle, model, recipe, workers)
        assert done.adapted is not None
        learned = CellBundle(done.adapted.adapter, config.backbone, config.cells, recipe)
        save_cell_bundle(folder.path / "bundle", learned)
        return _write(config, request, inputs, done, folder.path)


def localize(
    map: str | Path | Sequence[str | Path],
    photos: str | Path | Sequence[str | Path],
    *,
    config: Config | None = None,
    bundle: str | Path | None = None,
    adapt: bool = True,
    cache: str | Path | None = None,
    crs: str = "",
) -> list[dict[str, Any]]:
    """Where on a map photos were taken: one row for each, sorted by image_id, made in this process.

    map: a GeoTIFF, several, a folder of tiles (paths or URIs); photos: files or folders. config:
    `load_config`'s; what counts are its backbone, cells and prior. bundle: what `cvgl-ray localize --map`
    left of another flight. adapt: learn from the flight before its photos are placed. cache: folder that
    keeps the cells for the next call; None: they are thrown away.

    Returns {"image_id", "found", "latitude", "longitude" (degrees WGS84, of the ground under the photo's
    middle), "heading_deg", "ground_width_m", "error_m", "confidence", "reason", "corners" ((latitude,
    longitude) of the ground under the photo's corners, clockwise from its upper left)}, None where not found.
    Raises InputError for what cannot be a map, a photo or a backbone.
    """
    folder = None if bundle is None else Path(bundle)
    if config is None:
        config = load_map_config(bundle=folder)
    if not adapt:
        config = frozen(config)
    request = Request(_named(map), _named(photos), crs, folder)
    inputs = _checked(config, request)
    learned = None if folder is None else load_cell_bundle(folder)
    model, recipe = _model(config, learned)
    with tempfile.TemporaryDirectory() as temporary:
        done = _localized(config, inputs, Path(cache or temporary), learned, model, recipe, work_here)
    return [vars(row) for row in locations(inputs.photos, done, inputs.geomap.frame)]


def frozen(config: Config) -> Config:
    """The configuration without adaptation to the flight."""
    return config.model_copy(update={"cells": config.cells.model_copy(update={"rounds": 0})})


def _checked(config: Config, request: Request, frames: Path | None = None) -> Inputs:
    """All that can be refused before a model is made; frames: see `open_inputs`."""
    check_kinds(request.write)
    check_backbone(config.backbone)
    if request.truth and request.truth != OWN_GPS:
        read_truth(request.truth)  # a file that is none is refused before videos are decoded
    inputs = open_inputs(request.maps, request.photos, config.prior, request.crs, frames, request.every_s)
    check_truth(request.truth, inputs, config.prior)
    scales = searched_scales(config.cells, inputs.geomap)
    infos = [photo.info for photo in inputs.photos if not photo.reason]
    allowed_poses(config.prior, infos, inputs.geomap, scales, searched_headings(config.cells))
    log.info(
        "map: %.2f km2 at %.2g m per pixel; %d photos",
        inputs.geomap.area_m2 / 1e6,
        inputs.geomap.metres_per_pixel,
        len(inputs.photos),
    )
    if is_large(config.cells, inputs.geomap):
        log.info("it is large: searched in coarse cells, and in fine ones where photos may lie")
    for note in inputs.notes:
        log.info("%s", note)
    return inputs


def _model(config: Config, bundle: CellBundle | None) -> tuple[CellModel, dict[str, Any]]:
    """The model and its cells' recipe. Raises InputError where it makes none, or others than the bundle's."""
    model = build_cell_model(config.backbone, config.cells.layer)
    recipe = cell_recipe(model, config.backbone)
    if bundle is not None:
        check_recipe(bundle, recipe)
    model.fold()
    return model, recipe


def _localized(
    config: Config,
    inputs: Inputs,
    cells: Path,
    bundle: CellBundle | None,
    model: CellModel,
    recipe: dict[str, Any],
    workers: Workers,
) -> Localized:
    return localize_photos(
        inputs.photos,
        inputs.geomap,
        cells,
        recipe,
        model.channels,
        model.stride,
        workers(model, inputs.geomap, config.run.gpu),
        config.cells,
        config.prior,
        None if bundle is None else bundle.adapter,
        inputs.flights,
    )


def _write(config: Config, request: Request, inputs: Inputs, done: Localized, folder: Path) -> Answer:
    """All that a person or a program reads; the truth is read here, after everything else."""
    rows = locations(inputs.photos, done, inputs.geomap.frame)
    write_tables(folder, rows, inputs.photos)
    write_georeferenced(folder, request.write, rows, inputs.photos)
    notes = [*inputs.notes, *outcome_notes(rows, done)]
    truth = metrics = None
    if request.truth:
        truth = load_truth(request.truth, inputs)
        notes += truth_notes(request.truth, truth, inputs)
        metrics = figures(rows, truth) | {"labels_read": False, "seconds": done.seconds}
        write_json(folder / "metrics.json", metrics)
    table = configuration_table(config)
    write_charts(folder / "tensorboard", config.cells, table, inputs, done, rows, metrics)
    by_id = {row.image_id: row for row in rows}
    ordered = [by_id[name] for flight in inputs.flights for name in flight.image_ids]
    write_report(
        folder / "report.html",
        ordered,
        inputs.photos,
        inputs.geomap,
        truth=truth,
        metrics=metrics,
        parameters=parameters(config.backbone, config.cells, request, inputs, done),
        priors=done.priors,
        notes=notes,
    )
    return Answer(rows, metrics, notes, done.seconds)


def _named(paths: str | Path | Sequence[str | Path]) -> list[str]:
    listed = [paths] if isinstance(paths, str | Path) else paths
    return [path if is_uri(str(path)) else str(path) for path in map(str, listed)]
