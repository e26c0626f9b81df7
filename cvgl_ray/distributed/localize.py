"""Locate single images: the best references of a gallery, with coordinates where they are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cvgl_ray.bundle import load_bundle
from cvgl_ray.catalog.folders import scan_images
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.distributed import session
from cvgl_ray.distributed.extract import extract
from cvgl_ray.errors import InputError
from cvgl_ray.features.recipe import check_recipes
from cvgl_ray.search.ranks import check_k, top_k


def localize(
    bundle_folder: Path, gallery_root: str, queries: list[Path], k: int, cache: Path, address: str = ""
) -> list[dict[str, Any]]:
    """The k best references of each query image, best first.

    Returns per query {"query", "references": [{"image_id", "uri", "similarity", "latitude", "longitude"}]},
    coordinates None where unknown; the similarity is the configured score (by CSLS a cosine less the
    reference's hubness). Features are kept in `cache`. Raises InputError for an unusable query image or a k
    larger than the gallery.
    """
    bundle = load_bundle(bundle_folder)
    dataset = bundle.config.dataset
    gallery = scan_images(gallery_root, dataset.reference_view, "gallery")
    check_k(k, len(gallery))
    asked = Catalog.from_rows(
        [
            {
                "image_id": f".query/{number}/{path.name}",
                "uri": str(path.resolve()),
                "view": dataset.query_view,
                "split": "query",
                "latitude": None,
                "longitude": None,
            }
            for number, path in enumerate(queries)
        ]
    )
    session.connect(address)
    found = extract(concat([asked, gallery]), bundle.config, cache, cache / "rejected.parquet")
    check_recipes(bundle.recipes, found.recipes, bundle_folder)  # the checkpoint's file may be another by now
    for rejected in found.rejected:
        if rejected["view"] == dataset.query_view:
            raise InputError(f"query image {rejected['uri']} cannot be used: {rejected['reason']}")
    model = replace(bundle.retriever(bundle.config.retrieval), bank="training")
    tables = found.tables
    sides = model.sides(tables[dataset.query_view].features, tables[dataset.reference_view].features)
    indices, similarities = top_k(*sides, k)
    by_id = {row["image_id"]: row for row in gallery.rows.to_pylist()}
    ids = found.tables[dataset.reference_view].image_ids
    columns = ("image_id", "uri", "latitude", "longitude")
    return [
        {
            "query": str(path),
            "references": [
                {name: by_id[ids[row]][name] for name in columns} | {"similarity": similarity}
                for row, similarity in zip(rows, scores, strict=True)
            ],
        }
        for path, rows, scores in zip(queries, indices.tolist(), similarities.tolist(), strict=True)
    ]
