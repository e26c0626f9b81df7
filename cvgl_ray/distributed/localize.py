"""Locate single images: the best references of a gallery, with coordinates where they are known."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.bundle import Bundle, load_bundle
from cvgl_ray.catalog.folders import scan_images
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Config, Dataset
from cvgl_ray.config.differences import load_on_bundle
from cvgl_ray.distributed.extract import extract, stored
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.errors import InputError
from cvgl_ray.features.recipe import check_backbone, check_recipes
from cvgl_ray.features.table import FeatureTable, Table, read_table, select
from cvgl_ray.search.topk import top_k
from cvgl_ray.storage.filesystem import exists, is_uri
from cvgl_ray.storage.galleries import Gallery, gallery_key, keep_gallery, load_gallery, rounded
from cvgl_ray.storage.known_files import KnownFiles

log = logging.getLogger(__name__)

Row = dict[str, Any]  # an image: "image_id", "uri", "latitude", "longitude"


def localize(
    bundle_folder: Path,
    gallery: str,
    queries: Sequence[str | Path],
    top: int = 5,
    *,
    overrides: tuple[str, ...] = (),
    address: str = "",
) -> list[dict[str, Any]]:
    """The `top` best references of each query, best first.

    gallery: a folder of images; queries: images. Of a bundle that was trained on a table of features both are
    such tables, Parquet files or folders of them. overrides: of the bundle's configuration, such as where the
    backbone's weights lie now. Features of images are kept in features.cache, by default beside the bundle.

    Returns per query {"query", "references": [{"image_id", "uri", "similarity", "latitude", "longitude"}]},
    coordinates None where unknown; the similarity is the configured score (by CSLS a cosine less the
    reference's hubness). Of a bundle that has learned to align, each reference has a "confidence" and a
    "pose" too (see alignment.poses.Found.pose), and vector and alignment together order them. Raises
    InputError for an unusable query or gallery.
    """
    bundle = load_bundle(bundle_folder)
    config = load_on_bundle(bundle.config, bundle_folder, overrides=overrides)
    model = replace(bundle.retriever(config.retrieval), bank="training")
    if config.features.table:
        names, asked, rows, searched = _tables(gallery, queries, config.dataset, bundle.adapter.dimension)
        _check_top(top, len(rows))
        side = model.sides(asked.features, searched.rows(searched.image_ids))[1]
    else:
        if config.backbone != bundle.config.backbone:
            check_backbone(config.backbone)
        names = [str(query) for query in queries]
        catalog, images = _catalogs(gallery, names, config.dataset)
        _check_top(top, len(images))
        asked, found = _searchable(catalog, images, config, bundle, model, bundle_folder, address)
        everything = images.rows.to_pylist()
        rows, side, usable = [everything[row] for row in found.rows], found.side, np.array(found.rows)
    # The gallery's side is known: a row in its place is enough.
    asked_side = model.sides(asked.features, np.zeros((1, asked.dimension), np.float32))[0]
    aligned = None if config.features.table or config.alignment.use == "no" else bundle.alignment
    count = top if aligned is None else min(len(rows), max(top, config.alignment.candidates))
    indices, similarities = (part.numpy() for part in top_k(asked_side, side, count))
    answers = _answers(indices, similarities)
    if aligned is not None:
        from cvgl_ray.distributed.localize_aligned import (
            align_candidates,  # here: Ray, which few images need not
        )

        cache, images = _cache(config.features.cache, bundle_folder), Catalog(images.rows.take(usable))
        try:
            answers = align_candidates(
                catalog, images, (indices, similarities), top, bundle, config, cache, address
            )
        except InputError as error:  # such as weights that are not here any more
            log.warning("warning: told by vectors alone, since %s", error)
    return [
        {"query": name, "references": [_described(rows[one.pop("row")], one) for one in answer[:top]]}
        for name, answer in zip(names, answers, strict=True)
    ]


def _answers(indices: np.ndarray, similarities: np.ndarray) -> list[list[dict[str, Any]]]:
    """Per query its best rows [Q, k], best first."""
    return [
        [{"row": row, "similarity": score} for row, score in zip(best, scores, strict=True)]
        for best, scores in zip(indices.tolist(), similarities.tolist(), strict=True)
    ]


def _described(row: Row, found: dict[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in ("image_id", "uri", "latitude", "longitude")} | found


def _cache(configured: str, folder: Path) -> Path:
    """Where features are kept: as configured, or beside the bundle."""
    return Path(configured or folder.parent / "features")


def _searchable(
    asked: Catalog,
    images: Catalog,
    config: Config,
    bundle: Bundle,
    model: Retriever,
    folder: Path,
    address: str,
) -> tuple[FeatureTable, Gallery]:
    """The queries' features, and the gallery's side of the scores: as it was kept, or made and kept."""
    cache = _cache(config.features.cache, folder)
    kept = cache.with_name("galleries")
    described = [(folder / "config.json").read_text(), config.retrieval.model_dump(mode="json")]

    def key() -> str | None:
        digests = KnownFiles(cache).digests(images.uris)
        known = [digest for digest in digests if digest is not None]
        return gallery_key(described, images.image_ids, known) if len(known) == len(digests) else None

    name = None if config.features.verify else key()
    found = load_gallery(kept, name) if name else None
    wanted = asked if found else concat([asked, images])
    made = (
        stored(wanted, bundle.recipes, cache)
        if bundle.trusts(config.backbone, verify=config.features.verify)
        else None
    )
    if made is None:
        check_backbone(config.backbone)
        check = partial(check_recipes, bundle.recipes, bundle=folder)
        made = extract(wanted, config, cache, cache.with_name("rejected_by_localize.parquet"), address, check)
    for rejected in made.rejected:
        if rejected["view"] == config.dataset.query_view:
            raise InputError(f"--query {rejected['uri']} cannot be used: {rejected['reason']}")
    queries = select(made.tables[config.dataset.query_view])
    if found is None:
        table = made.tables[config.dataset.reference_view]
        number = {image_id: row for row, image_id in enumerate(images.image_ids)}
        side = rounded(model.sides(queries.features, table.rows(table.image_ids))[1])
        found = Gallery([number[image_id] for image_id in table.image_ids], side)
        name = key()  # known by now, but for files that are only just there
        if name:
            keep_gallery(kept, name, found)
    return queries, found


def _catalogs(gallery: str, queries: Sequence[str], dataset: Dataset) -> tuple[Catalog, Catalog]:
    """The queries and the gallery, before any of them is read."""
    for path in queries:
        if not (exists(path) if is_uri(path) else Path(path).is_file()):
            raise InputError(f"--query {path}: there is no such file; give an image")
    asked = Catalog.from_rows(
        {
            "image_id": f".query/{number}/{Path(path).name}",
            "uri": path if is_uri(path) else str(Path(path).resolve()),
            "view": dataset.query_view,
            "split": "query",
        }
        for number, path in enumerate(queries)
    )
    return asked, scan_images(gallery, dataset.reference_view, "gallery")


def _tables(
    gallery: str, queries: Sequence[str | Path], dataset: Dataset, dimension: int
) -> tuple[list[str], FeatureTable, list[Row], Table]:
    """Names and features of the queries, rows and features of the gallery, of tables of either view."""
    searched = read_table(gallery, dataset.reference_view)
    parts = [read_table(path, dataset.query_view) for path in queries]
    names = [name for part in parts for name in part.image_ids]
    for table, option in ((searched, "--gallery"), *((part, "--query") for part in parts)):
        if table.dimension != dimension:
            raise InputError(
                f"{option} has features of {table.dimension} dimensions, and the bundle was trained on "
                f"{dimension}; give features of the same kind"
            )
    asked = FeatureTable(names, np.concatenate([part.rows(part.image_ids) for part in parts]))
    return names, asked, [{"image_id": name, "uri": ""} for name in searched.image_ids], searched


def _check_top(top: int, gallery: int) -> None:
    if not 1 <= top <= gallery:
        raise InputError(f"--top {top} was asked of a gallery of {gallery} references; give 1 to {gallery}")
