"""Bring the feature store up to date with a catalog: which images lack a row, which are broken.

Ray is imported and started only where there is work for it: a few images are extracted in this process.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, Pretransform
from cvgl_ray.features.batches import Batch, Pretransforms, VectorWork, Work, missing_batches, run_here
from cvgl_ray.features.collecting import collect
from cvgl_ray.features.extraction import Extraction, load_tables, rejected_images, warn_of_copies
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.storage.known_files import KnownFiles, hash_files
from cvgl_ray.storage.windows import image_digest, split_window

log = logging.getLogger(__name__)

FEW_TO_EXTRACT = 32  # images that are done before Ray would have started
FEW_TO_HASH = 512

Check = Callable[[Mapping[str, dict[str, Any]]], None]


def extract(
    catalog: Catalog,
    config: Config,
    root: Path,
    rejected_path: Path,
    address: str = "",
    check: Check | None = None,
) -> Extraction:
    """Bring the feature store below `root` up to date with the catalog and return the catalog's features.

    address: of the Ray cluster, joined or started where it is needed. check: gets the recipes by view as soon
    as they are known, before any image is read, and raises InputError where they are not the right ones.
    Broken images are left out and named in `rejected_path` (Parquet: image_id, uri, view, reason). Raises
    InputError where too many are (features.max_rejected), or the backbone cannot be made or used; what
    was extracted stays in the store.
    """
    backbone = build_backbone(config.backbone)
    views = config.pretransform.settled()
    sections: dict[str, Pretransform] = {
        config.dataset.query_view: views.query,
        config.dataset.reference_view: views.reference,
    }
    pretransforms = {view: pretransform_of(section) for view, section in sections.items()}
    result = Extraction()
    result.recipes = {view: recipe(backbone, config.backbone, section) for view, section in sections.items()}
    if check is not None:
        check(result.recipes)
    stores = {view: FeatureStore(root, view, made) for view, made in result.recipes.items()}
    if not any(store.digests() for store in stores.values()):
        backbone.try_out()  # a size that it cannot take is told before the images are read
    for store in stores.values():
        store.open()
    digests = file_digests_of(catalog.uris, root, config.features.verify, address)
    warn_of_copies(catalog, digests)
    batches = missing_batches(catalog, digests, stores, config.features.batch_size)
    work, images = VectorWork(backbone, pretransforms), sum(len(batch["digests"]) for batch in batches)
    _announce(len(catalog), batches, pretransforms)
    reasons = {digest: "" for digest in digests if digest.startswith("!")}
    reasons |= bring(
        batches, work, stores, address, FEW_TO_EXTRACT, gpu=config.run.gpu, actors=config.features.actors
    )
    result.rejected = rejected_images(catalog, digests, reasons, rejected_path, config.features.max_rejected)
    result.extracted = images - sum(not digest.startswith("!") for digest in reasons)
    result.reused = len(catalog) - result.extracted - len(result.rejected)
    result.tables = load_tables(catalog, digests, stores)
    return result


def bring(
    batches: Sequence[Batch],
    work: Work,
    stores: Mapping[str, FeatureStore],
    address: str,
    few: int,
    *,
    gpu: bool,
    actors: int,
) -> dict[str, str]:
    """Put what `work` makes of the batches into the stores; digest -> reason of the broken images.

    Up to `few` images are done in this process, more and those of a GPU on the cluster at `address`;
    actors: see `config.Features`.
    """
    images = sum(len(batch["digests"]) for batch in batches)
    if not images:
        return {}
    if images <= few and not gpu:
        return collect(run_here(batches, work), stores, images)
    from cvgl_ray.distributed import session
    from cvgl_ray.distributed.pixel_pipeline import run_batches

    session.connect(address)
    made = run_batches(batches, work, gpu=gpu, actors=actors)
    return collect(made, stores, images)


def stored(catalog: Catalog, recipes: Mapping[str, dict[str, Any]], root: Path) -> Extraction | None:
    """The catalog's features where the store below `root` has them all by these recipes, by view; else None.

    Neither timm nor a model is needed, nor is an image read whose size and time are known.
    """
    stores = {view: FeatureStore(root, view, made) for view, made in recipes.items()}
    digests = [digest or "!" for digest in KnownFiles(root).digests(catalog.uris)]
    known = not any(digest.startswith("!") for digest in digests)
    if not known or missing_batches(catalog, digests, stores, len(catalog)):
        return None
    tables = load_tables(catalog, digests, stores)
    return Extraction(tables, dict(recipes), reused=len(catalog))


def file_digests_of(uris: Sequence[str], root: Path, verify: bool, address: str) -> list[str]:
    """A digest of each image; its file is read only where `root` does not know it or `verify` is set.

    "!" and why not where it cannot be read.
    """
    known = KnownFiles(root)
    found, files = known.digests(uris), [split_window(uri)[0] for uri in uris]
    lacking = (file for file, digest in zip(files, found, strict=True) if verify or digest is None)
    unknown = list(dict.fromkeys(lacking))
    if not unknown:
        return [digest or "" for digest in found]
    if len(unknown) > FEW_TO_HASH:
        from cvgl_ray.distributed import session
        from cvgl_ray.distributed.hashing import file_digests

        session.connect(address)
        hashed = file_digests(unknown)
    else:
        hashed = hash_files(unknown)
    known.learn(unknown, hashed)
    read = dict(zip(unknown, hashed, strict=True))
    return [
        image_digest(read[file], uri) if file in read else digest or ""
        for uri, file, digest in zip(uris, files, found, strict=True)
    ]


def _announce(images: int, batches: Sequence[Batch], pretransforms: Pretransforms) -> None:
    """Say what the extraction will cost before it starts."""
    costs = {view: pretransform.forwards for view, pretransform in pretransforms.items()}
    log.info(
        "features: %d of %d images to extract, %d forwards (per image: %s)",
        sum(len(batch["digests"]) for batch in batches),
        images,
        sum(len(batch["digests"]) * costs[batch["view"]] for batch in batches),
        ", ".join(f"{view} {cost}" for view, cost in costs.items()),
    )
