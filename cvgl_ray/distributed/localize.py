"""Locate single images: the best references of a gallery, with coordinates where they are known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.bundle import Bundle, load_bundle
from cvgl_ray.catalog.folders import scan_images
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Config
from cvgl_ray.config.differences import load_on_bundle
from cvgl_ray.distributed import session
from cvgl_ray.distributed.extract import extract
from cvgl_ray.errors import InputError
from cvgl_ray.features.recipe import check_recipes
from cvgl_ray.features.store import FeatureTable, read_table
from cvgl_ray.search.topk import top_k
from cvgl_ray.storage.filesystem import exists, is_uri

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
    reference's hubness). Raises InputError for an unusable query or gallery.
    """
    bundle = load_bundle(bundle_folder)
    config = load_on_bundle(bundle.config, bundle_folder, overrides=overrides)
    if config.features.table:
        names, asked, rows, searched = _tables(gallery, queries, config, bundle)
        _check_top(top, len(rows))
    else:
        names = [str(query) for query in queries]
        catalog, images = _catalogs(gallery, names, config)
        _check_top(top, len(images))
        asked, searched = _features(concat([catalog, images]), config, bundle, bundle_folder, address)
        by_id = {row["image_id"]: row for row in images.rows.to_pylist()}
        rows = [by_id[name] for name in searched.image_ids]
    model = replace(bundle.retriever(config.retrieval), bank="training")
    indices, similarities = top_k(*model.sides(asked.features, searched.features), min(top, len(rows)))
    return [
        {
            "query": name,
            "references": [
                {key: rows[row].get(key) for key in ("image_id", "uri", "latitude", "longitude")}
                | {"similarity": similarity}
                for row, similarity in zip(best, scores, strict=True)
            ],
        }
        for name, best, scores in zip(names, indices.tolist(), similarities.tolist(), strict=True)
    ]


def _catalogs(gallery: str, queries: Sequence[str], config: Config) -> tuple[Catalog, Catalog]:
    """The queries and the gallery, before any of them is read."""
    for path in queries:
        if not (exists(path) if is_uri(path) else Path(path).is_file()):
            raise InputError(f"--query {path}: there is no such file; give an image")
    asked = Catalog.from_rows(
        {
            "image_id": f".query/{number}/{Path(path).name}",
            "uri": path if is_uri(path) else str(Path(path).resolve()),
            "view": config.dataset.query_view,
            "split": "query",
        }
        for number, path in enumerate(queries)
    )
    return asked, scan_images(gallery, config.dataset.reference_view, "gallery")


def _features(
    catalog: Catalog, config: Config, bundle: Bundle, folder: Path, address: str
) -> tuple[FeatureTable, FeatureTable]:
    """The features of the queries and of the gallery's images; a broken image of the gallery is left out."""
    session.connect(address)
    cache = Path(config.features.cache or folder.parent / "features")
    found = extract(catalog, config, cache, cache.with_name("rejected_by_localize.parquet"))
    check_recipes(bundle.recipes, found.recipes, folder)
    for rejected in found.rejected:
        if rejected["view"] == config.dataset.query_view:
            raise InputError(f"--query {rejected['uri']} cannot be used: {rejected['reason']}")
    return found.tables[config.dataset.query_view], found.tables[config.dataset.reference_view]


def _tables(
    gallery: str, queries: Sequence[str | Path], config: Config, bundle: Bundle
) -> tuple[list[str], FeatureTable, list[Row], FeatureTable]:
    """Names and features of the queries, rows and features of the gallery, of tables of either view."""
    searched = read_table(gallery, config.dataset.reference_view)
    parts = [read_table(path, config.dataset.query_view) for path in queries]
    names = [name for part in parts for name in part.image_ids]
    for table, option in ((searched, "--gallery"), *((part, "--query") for part in parts)):
        if table.dimension != bundle.adapter.dimension:
            raise InputError(
                f"{option} has features of {table.dimension} dimensions, and the bundle was trained on "
                f"{bundle.adapter.dimension}; give features of the same kind"
            )
    asked = FeatureTable(names, np.concatenate([part.features for part in parts]))
    return names, asked, [{"image_id": name, "uri": ""} for name in searched.image_ids], searched


def _check_top(top: int, gallery: int) -> None:
    if not 1 <= top <= gallery:
        raise InputError(f"--top {top} was asked of a gallery of {gallery} references; give 1 to {gallery}")
