"""Bring the store of cells up to date with a catalog: what images are laid on each other by."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cvgl_ray.bundle import Bundle
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Alignment, Backbone, CellLayer, Config
from cvgl_ray.distributed.cell_directions import fewer, found_directions, sample
from cvgl_ray.distributed.extract import bring, file_digests_of
from cvgl_ray.features.batches import missing_batches
from cvgl_ray.features.cell_batches import CellWork, Variants
from cvgl_ray.features.cell_model import CellModel, build_cell_model, cell_recipe
from cvgl_ray.features.cell_projection import CHANNELS
from cvgl_ray.features.cell_stores import CellStores
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.strip_cells import Sectors, StripWork
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.known_files import KnownFiles

log = logging.getLogger(__name__)

Made = Mapping[str, Any]  # Variants or Sectors by view
FEW_CELLS = 64  # images that are done before Ray would have started: a photo and its candidates, say


def variants_of(section: Alignment, query_view: str, reference_view: str) -> dict[str, Variants]:
    """Queries of one size in all headings, references of all sizes, so that both cover as much ground."""
    headings = tuple(360 * number / section.headings for number in range(section.headings))
    sides = tuple(max(2, round(section.side / width)) for width in section.widths)
    return {query_view: Variants((section.side,), headings), reference_view: Variants(sides)}


def sectors_of(config: Config) -> dict[str, Sectors]:
    """Of strips: both views in the same sectors and bands."""
    section, dataset = config.alignment, config.dataset
    assert isinstance(config.backbone.image_size, tuple)
    views = (
        (dataset.query_view, config.pretransform.query),
        (dataset.reference_view, config.pretransform.reference),
    )
    return {
        view: Sectors(
            section.headings,
            section.bands,
            made.projection,
            config.backbone.image_size,
            config.backbone.interpolation,
            made.field_of_view,
        )
        for view, made in views
    }


def bytes_needed(
    section: Alignment, queries: int, references: int, channels: int = CHANNELS, *, strips: bool = False
) -> int:
    """Of memory, at most: the cells in half precision, and as they are compared."""
    if strips:
        return (queries + references) * section.headings * section.bands * channels * (2 + 4)
    query, reference = variants_of(section, "query", "reference").values()
    numbers = queries * query.row_length(channels) + references * reference.row_length(channels)
    return numbers * (2 + 4)


@dataclass(frozen=True)
class Maker:
    """The model that makes cells, and its recipe, which is told before the model is made quicker."""

    model: CellModel
    recipe: dict[str, Any]

    @classmethod
    def of(cls, backbone: Backbone, layer: CellLayer) -> "Maker":
        """As configured. Raises InputError where the backbone gives no cells."""
        model = build_cell_model(backbone, layer)
        return cls(model, cell_recipe(model, backbone))


def extract_cells(
    catalog: Catalog,
    config: Config,
    root: Path,
    address: str = "",
    *,
    maker: Maker,
    directions: torch.Tensor | None = None,
    known: Path | None = None,
) -> tuple[CellStores, torch.Tensor | None]:
    """Bring the store of cells below `root` up to date with the catalog's images, and where they lie.

    directions [c, C]: of an earlier extraction whose cells are to be compared with these; None: found in a
    sample of the images, where cells are wide. known: the folder that knows the files' digests, by default
    `root`. Broken images have no cells and are named by the extraction of vectors. Returns the stores and the
    directions. Raises InputError where the cells cannot be used.
    """
    model = maker.model
    variants, work_of = _makers(config, model)
    digests = file_digests_of(catalog.uris, known or root, config.features.verify, address)
    if directions is None and model.channels > CHANNELS:
        few = work_of({view: fewer(made) for view, made in variants.items()}, None)
        directions = found_directions(root, maker.recipe, few, sample(catalog, digests, variants))
    stores = {
        view: FeatureStore(root, view, _recipe(maker.recipe, made, directions))
        for view, made in variants.items()
    }
    for store in stores.values():
        store.open()
    batches = missing_batches(catalog, digests, stores, config.features.batch_size)
    work, images = work_of(variants, directions), sum(len(batch["digests"]) for batch in batches)
    if images:
        log.info("cells: %d of %d images to extract", images, len(catalog))
    reasons = bring(
        batches, work, stores, address, FEW_CELLS, gpu=config.run.gpu, actors=config.features.actors
    )
    return CellStores(stores, _by_view(catalog, digests), reasons), directions


def stored_cells(
    catalog: Catalog, recipes: Mapping[str, dict[str, Any]], root: Path, known: Path
) -> CellStores | None:
    """The catalog's cells where the store below `root` has them all by these recipes, by view; else None.

    No model is needed, nor is an image read whose size and time `known` knows.
    """
    stores = {view: FeatureStore(root, view, recipe) for view, recipe in recipes.items()}
    digests = [digest or "!" for digest in KnownFiles(known).digests(catalog.uris)]
    unknown = any(digest.startswith("!") for digest in digests)
    if unknown or missing_batches(catalog, digests, stores, max(1, len(catalog))):
        return None
    return CellStores(stores, _by_view(catalog, digests))


def cells_as_learned(
    catalog: Catalog,
    bundle: Bundle,
    config: Config,
    root: Path,
    address: str,
    *,
    maker: Callable[[], Maker],
    known: Path,
) -> CellStores:
    """The catalog's cells as a bundle that has learned to align compares them: stored, or made now.

    maker: the model, asked for only where some are not stored; the rest: see `extract_cells`. Raises
    InputError where they come out as another kind than the bundle learned of.
    """
    learned = bundle.alignment
    assert learned is not None
    if learned.recipes and bundle.trusts(config.backbone, verify=config.features.verify):
        stores = stored_cells(catalog, learned.recipes, root, known)
        if stores is not None:
            return stores
    stores, _ = extract_cells(
        catalog, config, root, address, maker=maker(), directions=learned.directions, known=known
    )
    learned.check(stores.recipes)
    return stores


def _by_view(catalog: Catalog, digests: Sequence[str]) -> dict[str, dict[str, str]]:
    by_view: dict[str, dict[str, str]] = {}
    views = catalog.rows["view"].to_pylist()
    for view, name, digest in zip(views, catalog.image_ids, digests, strict=True):
        by_view.setdefault(view, {})[name] = digest
    return by_view


def _makers(config: Config, model: CellModel) -> tuple[Made, Callable[[Made, torch.Tensor | None], Any]]:
    """What is made of each view's images, and of that and directions the work that makes it."""
    section, dataset = config.alignment, config.dataset
    if not config.strips:
        made = variants_of(section, dataset.query_view, dataset.reference_view)
        return made, lambda some, directions: CellWork(model, some, directions)
    backbone = config.backbone
    preparing = Preparing(model.preprocessing, backbone.image_size, 1.0, backbone.interpolation)
    return sectors_of(config), lambda some, directions: StripWork(model, some, preparing, directions)


def _recipe(
    recipe: dict[str, Any], variants: Variants | Sectors, directions: torch.Tensor | None
) -> dict[str, Any]:
    """All that a row depends on besides the image; directions by their values."""
    kept = None if directions is None else file_digest(directions.numpy().tobytes())
    if isinstance(variants, Sectors):
        return {**recipe, "strip": variants.recipe(), "directions": kept}
    return {**recipe, "sides": list(variants.sides), "headings": list(variants.headings), "directions": kept}
