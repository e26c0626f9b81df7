"""A frozen timm model as a function from pictures to cells: one of its maps, at whatever size they have."""

import copy
import math
import warnings
from typing import Any

import torch
from torch import nn

from cvgl_ray import config
from cvgl_ray.errors import InputError
from cvgl_ray.features.folding import fold_batch_norms
from cvgl_ray.features.layers import check_layers, depth
from cvgl_ray.features.weights import build_model, weights_digest

STRIDE = 16  # px per cell at most: the deepest stage of a CNN that is still so fine
# Of a transformer: further on, cells tell what a picture shows better than where it is (experiments/LOG.md).
DEPTH = 0.6
TRIED_CELLS = (12, 13)  # rows and columns of the picture that a model is tried on


class CellModel:
    """Pictures [N, 3, H, W] in [0, 255], sides multiples of `stride` -> cells [N, C, h, w] float32 (CPU).

    layer: index of the stage or block whose map is taken; None: chosen by `cell_layer`. Raises InputError for
    a model without intermediate maps, or without this layer.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        import timm  # here: it takes seconds, which whoever makes no model need not wait

        check_layers(model, [0 if layer is None else layer], "token", "mean")
        self.layer = cell_layer(model) if layer is None else layer
        info: Any = model.feature_info[self.layer]  # type: ignore[index]
        self.stride, self.channels = int(info["reduction"]), int(info["num_chs"])
        self.device, self.dtype = torch.device("cpu"), dtype
        self.model = model.eval().requires_grad_(False).to(self.device, dtype)
        if all(parameter.ndim < 5 for parameter in model.parameters()):
            self.model.to(memory_format=torch.channels_last)
        if isinstance(model, timm.models.VisionTransformer):
            take_any_size(model)
        self._by_size: dict[tuple[int, int], nn.Module] | None = None  # where one model takes one size alone
        self.preprocessing: dict[str, Any] = timm.data.resolve_model_data_config(model)
        self._mean, self._std = (
            torch.tensor(self.preprocessing[key], device=self.device).view(1, 3, 1, 1) * 255
            for key in ("mean", "std")
        )

    @torch.inference_mode()
    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Raises InputError for cells that are not finite: broken weights, or a precision of small range."""
        prepared = (pictures.to(self.device).float() - self._mean) / self._std
        rows, columns = pictures.shape[-2:]
        [cells] = self._of_size(rows, columns).forward_intermediates(  # type: ignore[operator]
            prepared.to(self.dtype, memory_format=torch.channels_last),
            indices=[self.layer],
            intermediates_only=True,
            stop_early=True,
        )
        cells = cells.float().cpu()
        if not bool((cells.abs() < torch.finfo(torch.float16).max).all()):  # NaN is not less either
            raise InputError(
                f"the backbone gives cells that are not finite in {self.dtype}, or too large to be stored;"
                ' check its weights, use another cells.layer or backbone.precision = "float32"'
            )
        return cells

    def _of_size(self, rows: int, columns: int) -> nn.Module:
        """The model for pictures of so many px."""
        if self._by_size is None:
            return self.model
        if (rows, columns) not in self._by_size:
            self._by_size[rows, columns] = of_size(self.model, rows, columns)
        return self._by_size[rows, columns]

    def to(self, device: str) -> None:
        """Move the model to another device."""
        self._by_size = None if self._by_size is None else {}
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    @torch.no_grad()  # inference_mode would leave weights that cannot move to a GPU afterwards
    def fold(self) -> None:
        """Make a convolutional model of float32 quicker; its cells stay the same but for rounding."""
        if self.dtype == torch.float32:
            sample = torch.randint(
                0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
            )
            fold_batch_norms(self.model, lambda: [self(sample)])

    def try_out(self) -> None:
        """Take one picture. Raises InputError where the model gives no cells of a picture of any size."""
        rows, columns = TRIED_CELLS
        sides, expected = (rows * self.stride, columns * self.stride), (1, self.channels, *TRIED_CELLS)
        reason = self._tried(*sides, expected)
        if reason and hasattr(self.model, "set_input_size"):
            self._by_size = {}
            reason = self._tried(*sides, expected)
            self._by_size = {}
        if reason:
            name = type(self.model).__name__
            raise InputError(
                f"{name} gives no cells of pictures of {sides[0]} x {sides[1]} px ({reason}); use a"
                " convolutional backbone, or a plain vision transformer"
            )

    def _tried(self, height: int, width: int, expected: tuple[int, ...]) -> str:
        """Why a picture of so many px gives no cells of the expected shape; "" where it does."""
        try:
            found = tuple(self(torch.zeros(1, 3, height, width, dtype=torch.uint8)).shape)
        except InputError:
            raise
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return "" if found == expected else f"its cells are {found} instead of {expected}"


def build_cell_model(section: config.Backbone, layer: config.CellLayer) -> CellModel:
    """The configured frozen model, tried out. Raises InputError as build_model and CellModel do."""
    model = build_model(
        section.name, checkpoint=section.checkpoint, pretrained=section.pretrained, seed=section.seed
    )
    made = CellModel(
        model,
        None if layer == "auto" else layer,
        dtype=getattr(torch, section.precision),
    )
    made.try_out()
    return made


def cell_recipe(made: CellModel, section: config.Backbone) -> dict[str, Any]:
    """All that a cell depends on besides the picture, JSON values only; of a model before it is folded."""
    kept = {"name": section.name, "precision": section.precision}
    data = made.preprocessing
    return {
        "backbone": kept,
        "weights": weights_digest(made.model),
        "preprocessing": {key: list(data[key]) for key in ("mean", "std")},
        "cells": {"layer": made.layer % depth(made.model, "token"), "stride": made.stride},
    }


def cell_layer(model: nn.Module) -> int:
    """The layer whose cells are taken: a CNN's deepest stage of STRIDE px per cell, or a block at DEPTH."""
    reductions = [int(info["reduction"]) for info in model.feature_info]  # type: ignore[union-attr]
    if len(set(reductions)) == 1:
        return max(0, math.floor(DEPTH * len(reductions) + 0.5) - 1)
    fine = [index for index, reduction in enumerate(reductions) if reduction <= STRIDE]
    return max(fine) if fine else 0


def take_any_size(model: nn.Module) -> None:
    """Let a vision transformer take pictures of any multiple of its patch, as timm's own option does."""
    if getattr(model, "dynamic_img_size", None) is False:
        from timm.layers import Format

        model.dynamic_img_size = True  # type: ignore[assignment]
        embed = model.patch_embed
        embed.strict_img_size, embed.flatten = False, False  # type: ignore[union-attr, assignment]
        embed.output_fmt = Format.NHWC  # type: ignore[union-attr]


def of_size(model: nn.Module, rows: int, columns: int) -> nn.Module:
    """A model with windows or relative positions (Swin, BEiT, EVA-02) for pictures of so many px.

    It shares the weights that do not depend on the size; those that do are resampled from the model's own,
    never from another size's.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    made = copy.deepcopy(model, shared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells timm that its resampling could be quicker
        made.set_input_size(img_size=(rows, columns))  # type: ignore[operator]
    return made.requires_grad_(False)
