"""Cells on disk: a map's block by block, photos' one by one, each found again by what it was made of."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cvgl_ray.alignment.map_cells import CORE, MARGIN, Block, Forward, MapCells, block_cells, blocks_of, join
from cvgl_ray.alignment.turned import PhotoCells, photo_cells
from cvgl_ray.features.store import RowStore
from cvgl_ray.localization.photo_files import SUFFICIENT_PX, PhotoPixels
from cvgl_ray.maps.frame import Window
from cvgl_ray.maps.geomap import GeoMap
from cvgl_ray.storage.files import write_json


class BlockKey(NamedTuple):
    """One block of a map at one resolution; digest: of all that its cells follow from but the model."""

    digest: str
    metres_per_pixel: float
    block: Block


class MadeBlock(NamedTuple):
    """cells [C, CORE, CORE] float16, valid [CORE, CORE] bool, damaged: files with a corrupt part in it."""

    digest: str
    cells: np.ndarray
    valid: np.ndarray
    damaged: tuple[str, ...]


def make_block(geomap: GeoMap, key: BlockKey, forward: Forward, stride: int, channels: int) -> MadeBlock:
    """The cells of one block. A block without a valid pixel costs no forward."""
    picture = geomap.read(key.block.window, key.metres_per_pixel)
    if picture.valid.any():
        cells, valid = (part.numpy() for part in block_cells(picture, forward, stride))
    else:
        cells = np.zeros((channels, CORE, CORE), np.float16)
        valid = np.zeros((CORE, CORE), bool)
    return MadeBlock(key.digest, cells, valid, picture.damaged)


class MapCellFiles:
    """The blocks of a map at several resolutions, below `root`, whichever run has made them.

    recipe: see features.cell_model. stride: px per cell.
    """

    def __init__(
        self,
        root: Path,
        geomap: GeoMap,
        resolutions: Sequence[float],
        recipe: dict[str, Any],
        stride: int,
        channels: int,
    ) -> None:
        self.geomap, self.stride, self.channels = geomap, stride, channels
        self._store = RowStore(root, "map", {**recipe, "block": [CORE, MARGIN]})
        self._keys = {
            resolution: {(key.block.row, key.block.column): key for key in self._keys_of(resolution)}
            for resolution in resolutions
        }

    def _keys_of(self, resolution: float) -> Iterator[BlockKey]:
        cell = resolution * self.stride
        for tile in self.geomap.tiles(CORE * cell, MARGIN * cell):
            digest = f"{self.geomap.identity(tile.window)}/{resolution!r}"
            yield BlockKey(digest, resolution, Block(-tile.row - 1, tile.column, tile.window))

    @property
    def keys(self) -> list[BlockKey]:
        """All blocks that touch the map, resolution by resolution, the finest first, from the north-west."""
        return [key for keys in self._keys.values() for key in keys.values()]

    def lacking(self) -> list[BlockKey]:
        """Those of `keys` that nobody has made yet."""
        self._store.open()
        done = self._store.digests()
        return [key for key in self.keys if key.digest not in done]

    def add(self, made: Sequence[MadeBlock]) -> None:
        """Keep blocks, as one part file that appears whole or not at all."""
        arrays = {
            "cells": np.stack([block.cells for block in made]),
            "valid": np.stack([block.valid for block in made]),
        }
        digests = [block.digest for block in made]
        self._store.append_arrays(digests, digests, arrays)
        damaged = {block.digest: block.damaged for block in made if block.damaged}
        if damaged:
            write_json(self._damaged_file, self._damaged() | damaged)

    def damaged(self) -> list[str]:
        """Names of the map's files that have a corrupt part, whichever run has met it."""
        known, own = self._damaged(), {key.digest for key in self.keys}
        return sorted({name for digest, names in known.items() if digest in own for name in names})

    def _damaged(self) -> dict[str, Sequence[str]]:
        path = self._damaged_file
        found: dict[str, Sequence[str]] = json.loads(path.read_text()) if path.exists() else {}
        return found

    @property
    def paths(self) -> list[Path]:
        """The files of all blocks made so far; their names tell their content."""
        return self._store.paths()

    @property
    def _damaged_file(self) -> Path:
        return self._store.folder / "damaged.json"

    def level(self, resolution: float, window: Window) -> MapCells:
        """The cells of the blocks that a window touches."""
        cell = resolution * self.stride
        keys = [
            self._keys[resolution][block.row, block.column]
            for block in blocks_of(window, cell)
            if (block.row, block.column) in self._keys[resolution]
        ]
        if not keys:
            nothing = torch.zeros(self.channels, CORE, CORE, dtype=torch.float16)
            return MapCells(nothing, nothing[0] > 0, cell, window.west, window.north)
        digests = [key.digest for key in keys]
        cells, valid = (torch.from_numpy(self._store.read(digests, name)) for name in ("cells", "valid"))
        made = zip([key.block for key in keys], zip(cells, valid, strict=True), strict=True)
        return join(made, self.channels, cell)

    def sample(self, resolution: float, most: int) -> torch.Tensor:
        """Up to about `most` valid cells [n, C] float32, evenly spaced over blocks that are."""
        keys = list(self._keys[resolution].values())
        keys = keys[:: -(-len(keys) * CORE**2 // (4 * most)) or 1]
        digests = [key.digest for key in keys]
        cells, valid = (torch.from_numpy(self._store.read(digests, name)) for name in ("cells", "valid"))
        rows = cells.permute(0, 2, 3, 1)[valid]
        return rows[:: max(1, len(rows) // most)].float()


class PhotoCellFiles:
    """The cells of photos in all headings at several sizes, below `root`, known by their files' digests."""

    def __init__(
        self, root: Path, sides: Sequence[int], headings: Sequence[float], recipe: dict[str, Any]
    ) -> None:
        self.headings = tuple(headings)
        told = {**recipe, "headings": list(headings), "decoding": SUFFICIENT_PX}
        self._stores = {side: RowStore(root, "photo", {**told, "side_px": side}) for side in sides}

    def lacking(self, digests: Iterable[str]) -> dict[str, list[int]]:
        """By digest, the sizes that nobody has made yet."""
        for store in self._stores.values():
            store.open()
        done = {side: store.digests() for side, store in self._stores.items()}
        wanted = {digest: [side for side in done if digest not in done[side]] for digest in digests}
        return {digest: sides for digest, sides in wanted.items() if sides}

    def add(self, digest: str, image_id: str, made: dict[int, PhotoCells]) -> None:
        """Keep a photo's cells, by size."""
        for side, photo in made.items():
            arrays = {"cells": photo.cells[None].numpy(), "masks": photo.masks[None].numpy()}
            self._stores[side].append_arrays([digest], [image_id], arrays)

    @property
    def paths(self) -> list[Path]:
        """The files of all photos made so far; their names tell their content."""
        return [path for store in self._stores.values() for path in store.paths()]

    def read(self, digests: Sequence[str]) -> dict[int, list[PhotoCells]]:
        """The cells of photos by size, in the order asked."""
        return {
            side: [
                PhotoCells(_tensor(cells), _tensor(masks))
                for cells, masks in zip(
                    store.read_each(digests, "cells"), store.read_each(digests, "masks"), strict=True
                )
            ]
            for side, store in self._stores.items()
        }


def make_photo(
    pixels: PhotoPixels, sides: Sequence[int], headings: Sequence[float], forward: Forward, stride: int
) -> dict[int, PhotoCells]:
    """A photo's cells by size."""
    return {side: photo_cells(*pixels, side, headings, forward, stride) for side in sides}


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements="W"))  # torch warns of memory that is mapped
