"""What a recipe makes of images, on disk: Parquet parts and a manifest that says what produced them.

Layout: `ROOT/<view>/<fingerprint>/part-<checksum>.parquet` and `manifest.json`. A row is (digest, image_id,
view, arrays). The fingerprint is a hash of the recipe, so another pre-transform or weight file never meets
old rows; the digest is a hash of the image file, so a picture is never extracted twice under two names; the
checksum is a hash of the part itself, so that a part which was damaged is not taken for features.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.errors import InputError
from cvgl_ray.features.parts import read_digests, read_rows, write_part
from cvgl_ray.features.table import places_of
from cvgl_ray.storage.files import write_json

MANIFEST_VERSION = 1  # raise it when the meaning of a recipe's words changes
FEATURE = "feature"  # the array of a store of vectors
BLOCK_ROWS = 65_536  # of a table that is read block by block


def fingerprint(recipe: dict[str, Any]) -> str:
    """Sixteen hex digits that name a recipe (JSON values only)."""
    text = json.dumps({"version": MANIFEST_VERSION, **recipe}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class RowStore:
    """The arrays that one recipe produced of each image of one view, in half precision, read row by row.

    A row is one array per name, of the same shape in all rows: a vector [D]; cells [C, h, w] and their mask
    [h, w].
    """

    def __init__(self, root: Path, view: str, recipe: dict[str, Any], *, remembers: bool = False) -> None:
        """remembers: between reads, where rows lie, for many reads of a few rows; a few bytes per row."""
        self.view, self.recipe, self.remembers = view, recipe, remembers
        # Absolute, for a process with another working directory.
        self.folder = (root / view / fingerprint(recipe)).absolute()
        self._known: dict[tuple[Path, int, int], list[str]] = {}  # digests of the parts that were looked at
        self._found: dict[str, tuple[Path, int]] = {}  # what is remembered

    def open(self) -> None:
        """Create the folder and its manifest, unless they are there."""
        if not (self.folder / "manifest.json").exists():
            write_json(self.folder / "manifest.json", {"view": self.view, **self.recipe})

    def paths(self) -> list[Path]:
        """The part files, sorted."""
        return sorted(self.folder.glob("part-*.parquet"))

    def digests(self) -> set[str]:
        """Digests of the images that already have a row."""
        return set(self._places())

    def holds(self, digests: Sequence[str]) -> np.ndarray:
        """Which of these images have a row, [n] bool."""
        places = self._places()
        return np.array([digest in places for digest in digests], bool)

    def append_arrays(
        self, digests: Sequence[str], image_ids: Sequence[str], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Add n rows, arrays by name [n, ...] of any float type (or bool), as one part that appears whole."""
        stored = {
            name: np.ascontiguousarray(array, dtype=bool if array.dtype == bool else np.float16)
            for name, array in arrays.items()
        }
        write_part(self.folder, self.view, digests, image_ids, stored)

    def read(self, digests: Sequence[str], name: str) -> np.ndarray:
        """One array of n images, [n, ...] in the order asked; no more is read than their rows need.

        Raises InputError for an image without a row, and for a part that is damaged.
        """
        places = self._places()
        lacking = [digest for digest in digests if digest not in places]
        if lacking or not digests:
            raise self._lacking(len(lacking), len(digests))
        wanted: dict[Path, list[tuple[int, int]]] = {}  # by part: where a row goes, and where it lies
        for position, digest in enumerate(digests):
            path, row = places[digest]
            wanted.setdefault(path, []).append((position, row))
        found: np.ndarray | None = None
        for path, rows in wanted.items():
            rows.sort(key=lambda pair: pair[1])  # in the file's order: where all are wanted, none is moved
            block = read_rows(path, name, [row for _, row in rows])
            if found is None:
                found = np.empty((len(digests), *block.shape[1:]), block.dtype)
            found[[position for position, _ in rows]] = block
        assert found is not None
        return found

    def read_each(self, digests: Sequence[str], name: str) -> list[np.ndarray]:
        """As `read`, for arrays whose shape differs from image to image: one array per image."""
        places = self._places()
        lacking = [digest for digest in digests if digest not in places]
        if lacking:
            raise self._lacking(len(lacking), len(digests))
        return [read_rows(path, name, [row])[0] for path, row in (places[digest] for digest in digests)]

    def _lacking(self, count: int, asked: int) -> InputError:
        return InputError(
            f"{self.folder} holds no row of {count} of {asked} images; run `cvgl-ray extract` first"
        )

    def _places(self) -> dict[str, tuple[Path, int]]:
        """By digest, the part and the row in it; two runs with one cache may both have extracted an image."""
        status = {path: path.stat() for path in self.paths()}
        keys = [(path, found.st_mtime_ns, found.st_size) for path, found in status.items()]
        if keys != list(self._known):
            self._known = {key: self._known.get(key) or read_digests(key[0]) for key in keys}
            self._found = {}
        if self._found:
            return self._found
        places: dict[str, tuple[Path, int]] = {}
        for (path, *_), digests in self._known.items():
            for row, digest in enumerate(digests):
                places.setdefault(digest, (path, row))
        if self.remembers:
            self._found = places
        return places


class FeatureStore(RowStore):
    """The feature vectors that one recipe produced for one view."""

    def append(self, digests: Sequence[str], image_ids: Sequence[str], features: np.ndarray) -> None:
        """Add rows, [n, D] of any float type, as one part file that appears whole or not at all."""
        assert len(digests) == len(image_ids) == len(features)
        self.append_arrays(digests, image_ids, {FEATURE: features})

    def table(self, image_ids: Sequence[str], digests: Sequence[str]) -> "StoredTable":
        """The table of these images, found by digest; images without a row (rejected ones) are left out."""
        done = self.digests()
        if not done:
            raise InputError(f"{self.folder} holds no features; run `cvgl-ray extract` first")
        pairs = zip(image_ids, digests, strict=True)
        kept = [(name, digest) for name, digest in pairs if digest in done]
        return StoredTable([name for name, _ in kept], [digest for _, digest in kept], self)


@dataclass(frozen=True)
class StoredTable:
    """Feature rows of some images as they lie in a store; digests: of the images, in the ids' order."""

    image_ids: list[str]
    digests: list[str]
    store: FeatureStore

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def dimension(self) -> int:
        """Numbers per row."""
        return int(self.store.read(self.digests[:1], FEATURE).shape[1])

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """See Table; raises InputError for a part that is damaged, too."""
        return self.store.read(self.only(list(image_ids)).digests, FEATURE)

    def blocks(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """See Table."""
        for start in range(0, len(self), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            yield self.image_ids[part], self.store.read(self.digests[part], FEATURE)

    def only(self, image_ids: Sequence[str]) -> "StoredTable":
        """See Table."""
        digests = [self.digests[place] for place in places_of(self.image_ids, image_ids)]
        return replace(self, image_ids=list(image_ids), digests=digests)
