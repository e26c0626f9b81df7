"""Which images exist (`Catalog`) and, apart from it, which place each of them shows (`Labels`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvgl_ray.catalog.relevance import Relevance
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import resolve

# What an image of each split serves as. "test": a published pair, each side of which is asked and searched;
# "map": a reference that training sees too, as it sees the rest of the map.
SPLITS = {
    "train": ("train",),
    "query": ("query",),
    "gallery": ("gallery",),
    "test": ("query", "gallery"),
    "map": ("train", "gallery"),
}

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # path relative to the data set's root, '/'-separated, unique
        ("uri", pa.string()),  # local absolute path, or any URI that pyarrow.fs opens; "": there is no file
        ("view", pa.string()),  # a free name: "drone", "satellite", "street"
        ("split", pa.string()),  # one of SPLITS
        ("latitude", pa.float64()),  # degrees WGS84, -90 to 90, or null
        ("longitude", pa.float64()),  # degrees WGS84, -180 to 180, or null
    ]
)

LABEL_SCHEMA = pa.schema([("image_id", pa.string()), ("place_id", pa.string())])


@dataclass(frozen=True)
class Catalog:
    """The images of a data set, one row each, with SCHEMA's columns; it never says what place an image shows.

    Raises InputError on construction for an image id given twice, an empty field, an id that is no relative
    path, an unknown split, and a coordinate out of range or without its partner.
    """

    rows: pa.Table

    def __post_init__(self) -> None:
        assert self.rows.schema.equals(SCHEMA), f"a catalog has the columns {SCHEMA}, not {self.rows.schema}"
        _check_fields(self.rows)
        _check_coordinates(self.rows)
        twice = repeated(self.rows["image_id"])
        if twice is not None:
            uris = self.rows.filter(pc.equal(self.rows["image_id"], twice))["uri"].to_pylist()
            raise InputError(
                f"the image id {twice!r} names both {uris[0]!r} and {uris[1]!r}, but an id names one image:"
                " rename one of them or take one away"
            )

    def __len__(self) -> int:
        return self.rows.num_rows

    @property
    def image_ids(self) -> list[str]:
        """The ids, in the order of the rows."""
        return self.rows["image_id"].to_pylist()

    @property
    def uris(self) -> list[str]:
        """The addresses, in the order of the rows."""
        return self.rows["uri"].to_pylist()

    def select(self, *, view: str | None = None, split: str | None = None) -> "Catalog":
        """The rows of a view that serve as a split (None: all), in the same order; possibly none.

        split: "train", "query" or "gallery"; images of "test" and "map" serve as two of them.
        """
        rows = self.rows
        if view is not None:
            rows = rows.filter(pc.equal(rows["view"], view))
        if split is not None:
            serving = [name for name, serves in SPLITS.items() if split in serves]
            rows = rows.filter(pc.is_in(rows["split"], value_set=pa.array(serving, pa.string())))
        return Catalog(rows)

    def located(self, coordinates: Mapping[str, tuple[float, float]]) -> "Catalog":
        """The same images, those in `coordinates` (image id -> latitude, longitude) with these instead."""
        where = [coordinates.get(image_id, (None, None)) for image_id in self.image_ids]
        rows = self.rows
        for number, name in enumerate(("latitude", "longitude")):
            column = pc.coalesce(
                pa.chunked_array([[each[number] for each in where]], pa.float64()), rows[name]
            )
            rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
        return Catalog(rows)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """A catalog of dictionaries with SCHEMA's names as keys; coordinates may be left out."""
        return cls(pa.Table.from_pylist(list(rows), schema=SCHEMA))

    def write(self, path: str) -> None:
        """Write the rows as one Parquet file (a local path in an existing folder, or a URI)."""
        _write(self.rows, path)

    @classmethod
    def read(cls, path: str) -> Self:
        """The catalog that `write` left at `path`; InputError if there is none."""
        return cls(_read(path, SCHEMA))


@dataclass(frozen=True)
class Labels:
    """The place of each image, with LABEL_SCHEMA's columns, read by evaluation alone.

    The empty place "" says that an image (a distractor) is known to show no place: no query looks for it.
    `relevance`, where a data set gives one, says what places do not. Raises InputError on construction for an
    image labelled twice and for a null id or place.
    """

    rows: pa.Table
    relevance: Relevance | None = None

    def __post_init__(self) -> None:
        assert self.rows.schema.equals(LABEL_SCHEMA), f"labels have {LABEL_SCHEMA}, not {self.rows.schema}"
        if self.rows["image_id"].null_count or self.rows["place_id"].null_count:
            raise InputError(
                "a row of the labels has a null image_id or place_id: give both, an empty place for none"
            )
        twice = repeated(self.rows["image_id"])
        if twice is not None:
            raise InputError(
                f"the image {twice!r} has two labels, but an image shows one place: keep one of them"
            )

    def __len__(self) -> int:
        return self.rows.num_rows

    def place_ids(self, image_ids: Sequence[str]) -> npt.NDArray[np.str_]:
        """The place of each of N images, [N] strings in the order asked, joined by id.

        Raises InputError telling how many of the ids have no label.
        """
        asked = pa.array(image_ids, pa.string())
        found = pc.index_in(asked, value_set=self.rows["image_id"])
        if found.null_count:
            first = asked.filter(found.is_null())[0].as_py()
            raise InputError(
                f"{found.null_count} of {len(asked)} images have no label, {first!r} the first of them:"
                " add them to the label table, with an empty place_id if they show no place"
            )
        return np.array(self.rows["place_id"].take(found).to_pylist(), dtype=np.str_)

    @classmethod
    def from_places(cls, places: Mapping[str, str], relevance: Relevance | None = None) -> Self:
        """Labels of a dictionary from image id to place id."""
        columns = [pa.array(list(places), pa.string()), pa.array(list(places.values()), pa.string())]
        return cls(pa.Table.from_arrays(columns, schema=LABEL_SCHEMA), relevance)

    def write(self, path: str) -> None:
        """Write the rows as one Parquet file (a local path in an existing folder, or a URI)."""
        assert self.relevance is None, "one table holds places alone"
        _write(self.rows, path)

    @classmethod
    def read(cls, path: str) -> Self:
        """The labels that `write` left at `path`; InputError if there are none."""
        return cls(_read(path, LABEL_SCHEMA))


def concat(catalogs: Iterable[Catalog]) -> Catalog:
    """One catalog of all rows, in the order given; InputError if two of the catalogs share an image id."""
    return Catalog(pa.concat_tables([SCHEMA.empty_table(), *(catalog.rows for catalog in catalogs)]))


def repeated(ids: pa.ChunkedArray) -> str | None:
    """The first id that occurs more than once, None if all differ."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    counts = pc.value_counts(ids)
    twice: str = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
    return twice


def _check_fields(rows: pa.Table) -> None:
    if rows["uri"].null_count:
        raise InputError('a row of the catalog has no uri: give every image its file, or "" for none')
    for name in ("image_id", "view", "split"):
        if rows[name].null_count or pc.any(pc.equal(rows[name], "")).as_py():
            raise InputError(f"a row of the catalog has no {name}: give every image its {name}")
    # An id is joined to folders and prefixes; one with '..' could point out of the data set.
    strays = rows.filter(pc.match_substring_regex(rows["image_id"], r"^/|(^|/)\.\.(/|$)"))
    if strays.num_rows:
        stray = strays["image_id"][0].as_py()
        raise InputError(
            f"{stray!r} is not an image id, which is a path below the data set's root without '..': rename it"
        )
    unknown = rows.filter(pc.invert(pc.is_in(rows["split"], value_set=pa.array(list(SPLITS)))))
    if unknown.num_rows:
        image_id, split = unknown["image_id"][0].as_py(), unknown["split"][0].as_py()
        raise InputError(f"the image {image_id!r} is of split {split!r}: give it one of {', '.join(SPLITS)}")


def _check_coordinates(rows: pa.Table) -> None:
    # A NaN compares as out of range; a null with a partner is filled with one, to be caught with it.
    latitude, longitude = (pc.fill_null(rows[name], float("nan")) for name in ("latitude", "longitude"))
    inside = pc.and_(pc.less_equal(pc.abs(latitude), 90.0), pc.less_equal(pc.abs(longitude), 180.0))
    absent = pc.and_(rows["latitude"].is_null(), rows["longitude"].is_null())
    bad = rows.filter(pc.invert(pc.or_(inside, absent)))
    if bad.num_rows:
        row = bad.slice(0, 1).to_pylist()[0]
        raise InputError(
            f"the image {row['image_id']!r} has latitude {row['latitude']} and longitude {row['longitude']}:"
            " give degrees within [-90, 90] and [-180, 180], or neither"
        )


def _write(table: pa.Table, path: str) -> None:
    filesystem, inner = resolve(path)
    pq.write_table(table, inner, filesystem=filesystem)


def _read(path: str, schema: pa.Schema) -> pa.Table:
    filesystem, inner = resolve(path)
    try:
        # Opened as a single file: read as a data set, a folder named "view=drone" would become a column.
        with filesystem.open_input_file(inner) as source:
            table = pq.ParquetFile(source).read()
            return table.select(schema.names).cast(schema)
    except (OSError, KeyError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{path!r} cannot be read ({reason}): give a Parquet file"
            f" with the columns {', '.join(schema.names)}"
        ) from error
