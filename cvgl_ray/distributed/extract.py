"""Bring the feature store up to date with a catalog: which images lack a row, which are broken.

Ray is imported and started only where there is work for it: a few images are extracted in this process.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, Pretransform
from cvgl_ray.features.batches import Batch, VectorWork, Work, missing_batches, run_here
from cvgl_ray.features.collecting import Rows, collect
from cvgl_ray.features.extraction import Extraction, load_tables, rejected_images, warn_of_copies
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.variant_tasks import Task, tasks_of, without_forward
from cvgl_ray.features.variants import Averaged, VariantRows
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
    *,
    variants: Path | None = None,
) -> Extraction:
    """Bring the feature store below `root` up to date with the catalog and return the catalog's features.

    address: of the Ray cluster, joined or started where it is needed. check: gets the recipes by view as soon
    as they are known, before any image is read, and raises InputError where they are not the right ones.
    variants: where vectors of variants are kept, see `features.variants`; None: they are neither looked for
    nor kept, which suits images that no other pre-transform will be asked of.
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
    reasons = {digest: "" for digest in digests if digest.startswith("!")}
    vectors = {view: _averaged(store, sections[view], root, variants) for view, store in stores.items()}
    tasks, complete = tasks_of(batches, vectors)
    _announce(len(catalog), tasks, complete, vectors)
    if complete:
        collect(without_forward(complete), vectors, sum(len(batch["digests"]) for batch in complete))
    for task in tasks:
        reasons |= bring(
            task.batches,
            VectorWork(backbone, task.made),
            {view: vectors[view].of(made, task.images(view)) for view, made in task.made.items()},
            address,
            FEW_TO_EXTRACT,
            gpu=config.run.gpu,
            actors=config.features.actors,
        )
    images = sum(task.images() for task in tasks)
    result.rejected = rejected_images(catalog, digests, reasons, rejected_path, config.features.max_rejected)
    result.extracted = images - sum(not digest.startswith("!") for digest in reasons)
    result.reused = len(catalog) - result.extracted - len(result.rejected)
    result.tables = load_tables(catalog, digests, stores)
    return result


def bring(
    batches: Sequence[Batch],
    work: Work,
    stores: Mapping[str, Rows],
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


def _averaged(store: FeatureStore, section: Pretransform, root: Path, variants: Path | None) -> Averaged:
    """A view's features as means of its variants, which are kept below `variants`."""
    wanted = pretransform_of(section).variants
    rows = (
        {}
        if variants is None
        else {one: VariantRows(root, variants, store.view, store.recipe, one) for one in wanted}
    )
    return Averaged(store, wanted, rows)


def _announce(
    images: int, tasks: Sequence[Task], complete: Sequence[Batch], vectors: Mapping[str, Averaged]
) -> None:
    """Say what the extraction will cost before it starts."""
    averaged = sum(len(batch["digests"]) for batch in complete)
    log.info(
        "features: %d of %d images to extract, %d forwards (per image: %s%s)%s",
        sum(task.images() for task in tasks),
        images,
        sum(task.forwards for task in tasks),
        ", ".join(f"{view} {len(made.variants)}" for view, made in vectors.items()),
        ", less those of stored variants" if any(task.spares(vectors) for task in tasks) else "",
        f"; {averaged} are means of stored variants" if averaged else "",
    )
