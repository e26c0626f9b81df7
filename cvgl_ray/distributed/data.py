"""A data set's catalog and the features of its images, whoever extracted them."""

from dataclasses import dataclass
from pathlib import Path

from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.feature_table import scan_table, table_labels
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Backbone, Config, Dataset
from cvgl_ray.distributed.extract import Check, extract
from cvgl_ray.errors import InputError
from cvgl_ray.features.extraction import Extraction
from cvgl_ray.features.recipe import check_backbone
from cvgl_ray.features.table import Table, read_table
from cvgl_ray.storage.files import write_atomically


@dataclass(frozen=True)
class Data:
    """A data set's catalog and the features of its images by view."""

    catalog: Catalog
    extraction: Extraction


def scan(dataset: Dataset, table: str, backbone: Backbone) -> Catalog:
    """The images of the data set, or the rows of its table of features where there is no root.

    table: of features, "" where the backbone makes them.
    Raises InputError for what can be known to be wrong before any image is read: also of the backbone.
    """
    if table:
        of_table = scan_table(table, dataset.query_view, dataset.reference_view)
        if not dataset.root:
            return of_table
    if not dataset.root:
        raise InputError(
            "dataset.root is not set; give the data set's folder with --set dataset.root=DIR, or a table of "
            "features with --set features.table=FILE"
        )
    catalog = layouts.scan(
        dataset.layout, dataset.root, dataset.query_view, dataset.reference_view, dataset.distractors
    )
    if not table:
        check_backbone(backbone)
    return catalog


def load_labels(dataset: Dataset, table: str, catalog: Catalog) -> Labels | None:
    """The places of `scan`'s images, None where nobody named them; for the evaluation alone."""
    if not dataset.root:
        return table_labels(table, catalog)
    return layouts.load_labels(dataset.layout, dataset.root, catalog)


def load_features(
    config: Config,
    output: Path,
    address: str = "",
    *,
    catalog: Catalog | None = None,
    cache: Path | None = None,
    check: Check | None = None,
) -> Data:
    """The data set's catalog, written to `output`, and its features, extracted where the store lacks them.

    catalog: `scan`'s, where it is known already. cache: the store's folder where features.cache names none,
    by default `output`/features. check: as `extract` takes it.
    """
    catalog = catalog or scan(config.dataset, config.features.table, config.backbone)
    write_atomically(output / "catalog.parquet", lambda temporary: catalog.write(str(temporary)))
    if config.features.table:
        found = _foreign_features(config.dataset, config.features.table, catalog)
        if check is not None:
            check(found.recipes)
    else:
        store = Path(config.features.cache or cache or output / "features")
        variants = store.with_name("variants")
        found = extract(
            catalog, config, store, output / "rejected.parquet", address, check, variants=variants
        )
    return Data(catalog, found)


def _foreign_features(dataset: Dataset, table: str, catalog: Catalog) -> Extraction:
    """Features that somebody else extracted, matched to the catalog by image id."""
    found = Extraction()
    for view in (dataset.query_view, dataset.reference_view):
        ids = catalog.select(view=view).image_ids
        found.tables[view] = read_table(table, view).only(ids)
        found.recipes[view] = {"source": "features.table", "dimension": found.tables[view].dimension}
    return found


def training_tables(data: Data, dataset: Dataset) -> tuple[Table, Table]:
    """The query and the reference features to learn from."""
    query, reference = (
        data.extraction.tables[view].only(_trainable(data, view))
        for view in (dataset.query_view, dataset.reference_view)
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
