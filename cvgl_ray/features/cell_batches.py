"""One batch of images from files to cells: of each size and heading of its view, one long row per image."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from PIL import Image

from cvgl_ray.features.batches import Batch, decoded, embed_batch
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.cell_projection import projected
from cvgl_ray.features.cells import Cells, cell_mask, cells_of, resized, turn


@dataclass(frozen=True)
class Variants:
    """The cells of an image of one view: so many a side, each turned counter-clockwise by each heading."""

    sides: tuple[int, ...]
    headings: tuple[float, ...] = (0.0,)

    def row_length(self, channels: int) -> int:
        """Numbers per image."""
        return channels * len(self.headings) * sum(side**2 for side in self.sides)

    def cells(self, rows: np.ndarray, stride: int) -> list[Cells]:
        """Stored rows [N, L] float16 -> per side the cells [N, H, C, side, side]."""
        channels, first, found = rows.shape[1] // self.row_length(1), 0, []
        for side in self.sides:
            size = len(self.headings) * channels * side**2
            shape = (len(rows), len(self.headings), channels, side, side)
            maps = torch.from_numpy(np.ascontiguousarray(rows[:, first : first + size])).view(shape)
            whole = torch.ones(1, 1, side * stride, side * stride)
            masks = [cell_mask(turn(whole, heading, "zeros"), side) for heading in self.headings]
            found.append(Cells(maps, torch.stack(masks, dim=1)))
            first += size
        return found


@dataclass(frozen=True)
class CellWork:
    """The cells of each view's variants; directions [c, C]: what they are projected on, None where narrow."""

    model: CellModel
    variants: Mapping[str, Variants]
    directions: torch.Tensor | None = None

    def decoding(self) -> Callable[[Batch], Batch]:
        """See Work: pictures are cut square, of the largest variant's size."""
        sizes = {view: max(made.sides) * self.model.stride for view, made in self.variants.items()}
        return partial(decode_squares, sizes=sizes)

    def to(self, device: str) -> None:
        """See Work."""
        self.model.to(device)

    def fold(self) -> None:
        """See Work."""
        self.model.fold()

    def __call__(self, batch: Batch, pool: ThreadPoolExecutor | None = None) -> Batch:
        """See Work."""
        return embed_batch(batch, partial(self.rows, variants=self.variants[batch["view"]], pool=pool))

    def rows(
        self, pixels: np.ndarray, variants: Variants, pool: ThreadPoolExecutor | None = None
    ) -> np.ndarray:
        """Square pictures [n, 3, S, S] uint8 -> rows [n, L] float16, as `Variants.cells` takes them."""
        pictures = torch.from_numpy(pixels)

        def one(variant: tuple[int, float]) -> torch.Tensor:
            side, heading = variant
            cells = cells_of(self.model, pictures, side, [heading])
            return projected(cells, self.directions).maps.flatten(1)

        wanted = list(product(variants.sides, variants.headings))
        made = pool.map(one, wanted) if pool else map(one, wanted)
        return torch.cat(list(made), dim=1).numpy()


def decode_squares(batch: Batch, sizes: Mapping[str, int]) -> Batch:
    """As `batches.decode_batch`: pixels [n, 3, S, S], the middle square of each picture; sizes: S by view."""
    size = sizes[batch["view"]]
    return decoded(batch, [2 * size], lambda pictures: _square(pictures[0], size))


def _square(picture: Image.Image, size: int) -> np.ndarray:
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    cut = picture.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None]
    return resized(pixels, size)[0].round().to(torch.uint8).numpy()
