"""Cells: a frozen model's map of a picture, [C, n, n], at chosen sizes and headings.

One vector an image throws away where things lie. Its cells keep it: two of them can be laid on each other.
Cells do not turn with the picture, so each heading costs a forward; so does each size (cells a side).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cvgl_ray.errors import InputError

STRIDE = 16  # px a cell at most: the deepest stage of a CNN that is still so fine
WHOLE = 0.95  # share of a cell that must lie on the picture; turning blurs the border, so not quite all
CPU_PIXELS = 4 * 224 * 224  # taken at a time, see features.backbone
DEPTH = 0.75  # of a transformer: its last blocks tell what a picture shows better than where


@dataclass(frozen=True)
class Cells:
    """Cells of N images in V variants (headings, or one).

    maps [N, V, C, h, w] of any float type; masks [N, V, h, w] or [1, V, h, w] bool: which cells lie wholly on
    the picture, the same for all images where its first dimension is 1.
    """

    maps: torch.Tensor
    masks: torch.Tensor

    def __len__(self) -> int:
        return len(self.maps)

    def of(self, rows: np.ndarray | slice) -> "Cells":
        """The cells of some images."""
        return Cells(self.maps[rows], self.masks if len(self.masks) == 1 else self.masks[rows])


class CellBackbone:
    """A timm model that gives cells. layer: index of the stage or block; None: chosen by `cell_layer`.

    mean, std: per channel, of pixels in [0, 1]; None: the model's own. Raises InputError for a model without
    intermediate maps.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        import timm  # here: it takes seconds, which whoever makes no model need not wait

        if not hasattr(model, "forward_intermediates"):
            raise InputError(f"{type(model).__name__} gives no intermediate maps, so it has no cells")
        self.layer = cell_layer(model) if layer is None else layer
        info: Any = model.feature_info[self.layer]  # type: ignore[index]
        self.stride, self.channels = int(info["reduction"]), int(info["num_chs"])
        self.device, self.dtype = torch.device(device), dtype
        self.model = model.eval().requires_grad_(False).to(self.device, dtype)
        self.model.to(memory_format=torch.channels_last)
        take_any_size(model)
        data = timm.data.resolve_model_data_config(model)
        self._mean, self._std = (
            torch.tensor(own if given is None else given, device=self.device).view(1, 3, 1, 1) * 255
            for given, own in ((mean, data["mean"]), (std, data["std"]))
        )

    @torch.inference_mode()
    def cells(
        self,
        images: torch.Tensor,
        side: int,
        headings: Sequence[float] = (0.0,),
        valid: torch.Tensor | None = None,
    ) -> Cells:
        """Cells of side x side of square pictures [N, 3, S, S] uint8, turned counter-clockwise by `headings`.

        headings: degrees; valid [N, S, S] bool: which pixels count, all where None. The maps are float16 on
        the CPU. Raises InputError for cells that are not finite.
        """
        px, step = side * self.stride, max(1, CPU_PIXELS // (side * self.stride) ** 2)
        step = step if self.device.type == "cpu" else 64
        maps = torch.empty(len(images), len(headings), self.channels, side, side, dtype=torch.float16)
        for start in range(0, len(images), step):
            part = resized(images[start : start + step].to(self.device), px)
            for number, heading in enumerate(headings):
                turned = ((turn(part, heading) - self._mean) / self._std).to(self.dtype)
                maps[start : start + step, number] = self._forward(turned).to("cpu", torch.float16)
        if not maps.isfinite().all():
            raise InputError(
                f"the backbone gives cells that are not finite in {self.dtype}; check its weights"
            )
        pixels = torch.ones(1, 1, px, px) if valid is None else resized(valid[:, None].float(), px)
        masks = torch.stack([cell_mask(turn(pixels, heading, "zeros"), side) for heading in headings], dim=1)
        return Cells(maps, masks)

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        [found] = self.model.forward_intermediates(  # type: ignore[operator]
            batch.to(memory_format=torch.channels_last),
            indices=[self.layer],
            intermediates_only=True,
            stop_early=True,
        )
        return found.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else found


def cell_layer(model: nn.Module) -> int:
    """The layer whose cells are taken: a CNN's deepest stage of STRIDE px a cell, or a block at DEPTH."""
    reductions = [int(info["reduction"]) for info in model.feature_info]  # type: ignore[union-attr]
    if len(set(reductions)) == 1:
        return round(DEPTH * len(reductions)) - 1
    return max(index for index, reduction in enumerate(reductions) if reduction <= STRIDE)


def take_any_size(model: nn.Module) -> None:
    """Let a vision transformer take pictures of any multiple of its patch, as timm's own option does."""
    if getattr(model, "dynamic_img_size", None) is False:
        from timm.layers import Format

        model.dynamic_img_size = True  # type: ignore[assignment]
        embed = model.patch_embed
        embed.strict_img_size, embed.flatten = False, False  # type: ignore[union-attr, assignment]
        embed.output_fmt = Format.NHWC  # type: ignore[union-attr]


def resized(images: torch.Tensor, px: int) -> torch.Tensor:
    """Pictures [N, C, S, S] in [0, 255] as float of px a side, antialiased where they shrink."""
    if images.shape[-1] == px == images.shape[-2]:
        return images.float()
    grown = F.interpolate(images.float(), size=(px, px), mode="bicubic", antialias=True, align_corners=False)
    return grown.clamp(0, 255)


def turn(images: torch.Tensor, degrees: float, beyond: str = "reflection") -> torch.Tensor:
    """Square pictures [N, C, S, S], their content turned counter-clockwise; beyond: padding of the border."""
    if degrees % 90 == 0:
        return torch.rot90(images, int(degrees // 90) % 4, dims=(-2, -1))
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = float(angle.cos()), float(angle.sin())
    matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=images.device, dtype=images.dtype)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=beyond, align_corners=False)


def cell_mask(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Which cells are covered by valid pixels [N, 1, S, S] in [0, 1]: [N, side, side] bool."""
    return F.adaptive_avg_pool2d(pixels, side)[:, 0] >= WHOLE
