"""Which references of a direction are right for its queries, from the labels, and where the queries were."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.search.ranks import Relevant, of_pairs, of_places


class Judged(NamedTuple):
    """The right references of each query and, where the data set knows any, those in whose margin it lies.

    spots [G] int64: of each reference, where those of one spot count as one.
    """

    right: Relevant
    near: Relevant | None = None
    spots: np.ndarray | None = None


def judged(queries: Catalog, gallery: Catalog, labels: Labels) -> Judged:
    """By the labels' pairs where there are any, whichever side is asked, else by place.

    Raises InputError for an image without a label, where places decide.
    """
    pairs = labels.relevance.pairs if labels.relevance else None
    if pairs is None:
        places = (labels.place_ids(side.image_ids) for side in (queries, gallery))
        return Judged(of_places(*places))
    near = np.tile(pairs["near"].to_numpy(), 2)
    ids = pa.chunked_array([*pairs["query_id"].chunks, *pairs["reference_id"].chunks], pa.string())
    partners = pa.chunked_array([*pairs["reference_id"].chunks, *pairs["query_id"].chunks], pa.string())
    query_rows, gallery_rows = (
        pc.fill_null(pc.index_in(names, value_set=side.rows["image_id"]), -1).to_numpy()
        for names, side in ((ids, queries), (partners, gallery))
    )
    here = (query_rows >= 0) & (gallery_rows >= 0)

    def of_kind(wanted: np.ndarray) -> Relevant:
        kept = here & wanted
        once = np.unique(query_rows[kept].astype(np.int64) * len(gallery) + gallery_rows[kept])
        return of_pairs(*np.divmod(once, len(gallery)), len(queries))

    return Judged(of_kind(~near), of_kind(near) if near.any() else None, _spots(gallery, labels))


def _spots(gallery: Catalog, labels: Labels) -> np.ndarray | None:
    """Of each reference; one that the table lacks is a spot of its own."""
    table = labels.relevance.spots if labels.relevance else None
    if table is None:
        return None
    row = pc.index_in(gallery.rows["image_id"], value_set=table["image_id"].combine_chunks())
    named = table["spot"].combine_chunks().dictionary_encode().indices
    alone = pa.array(len(table) + np.arange(len(gallery)))
    return pc.coalesce(named.take(row).cast(pa.int64()), alone).to_numpy()


def coordinates(images: Catalog, labels: Labels | None = None) -> np.ndarray:
    """[2, N] float64: latitude and longitude in degrees, NaN where unknown.

    labels: whose true positions, where there are any, go before the catalog's.
    """
    columns = np.array(
        [images.rows[name].to_numpy(zero_copy_only=False) for name in ("latitude", "longitude")], np.float64
    )
    positions = None if labels is None or labels.relevance is None else labels.relevance.positions
    if positions is None:
        return columns
    row = pc.index_in(images.rows["image_id"], value_set=positions["image_id"].combine_chunks())
    known = pc.is_valid(row).to_numpy()
    taken = row.drop_null().cast(pa.int64())
    for column, name in zip(columns, ("latitude", "longitude"), strict=True):
        column[known] = positions[name].take(taken).to_numpy()
    return columns
