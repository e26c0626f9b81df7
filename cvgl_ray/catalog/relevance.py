"""What makes a reference right for a query where a place per image cannot say it; for evaluation alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

PAIRS = pa.schema([("query_id", pa.string()), ("reference_id", pa.string()), ("near", pa.bool_())])
SPOTS = pa.schema([("image_id", pa.string()), ("spot", pa.string())])
POSITIONS = pa.schema([("image_id", pa.string()), ("latitude", pa.float64()), ("longitude", pa.float64())])


@dataclass(frozen=True)
class Relevance:
    """Which references are right for a query, and where queries were truly taken; either may be missing.

    pairs: with PAIRS' columns; where there are any, they alone say what is relevant, and places do not. A
    pair that is `near` (VIGOR's semi-positives) shows the query's spot in its margin: it is wrong for
    recall, and the hit rate passes over it. positions: with POSITIONS' columns, degrees WGS84. spots: with
    SPOTS' columns: references of one spot count as one, at the rank of the best of them; all have one.
    """

    pairs: pa.Table | None = None
    positions: pa.Table | None = None
    spots: pa.Table | None = None


def pair_table(pairs: Iterable[tuple[str, str, bool]]) -> pa.Table:
    """A table of (query_id, reference_id, near)."""
    return _table(pairs, PAIRS)


def position_table(positions: Iterable[tuple[str, float, float]]) -> pa.Table:
    """A table of (image_id, latitude, longitude)."""
    return _table(positions, POSITIONS)


def spot_table(spots: Iterable[tuple[str, str]]) -> pa.Table:
    """A table of (image_id, spot)."""
    return _table(spots, SPOTS)


def _table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema
    )
