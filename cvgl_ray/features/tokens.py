"""A timm model's layers as maps of patch tokens, whatever shape the architecture answers in."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cvgl_ray.features.layers import Layer, depth

FACETS = {"query": 0, "key": 1, "value": 2}  # their order in timm's fused qkv projection


@dataclass(frozen=True)
class TokenMap:
    """A layer's output: patch tokens [B, h * w, D], row-major, and prefix tokens [B, P, D] if it has any."""

    patches: torch.Tensor
    grid: tuple[int, int]
    prefix: torch.Tensor | None = None

    def tensors(self) -> list[torch.Tensor]:
        """Patches, and prefix tokens if there are any."""
        return [self.patches] if self.prefix is None else [self.patches, self.prefix]


def token_maps(
    model: nn.Module, batch: torch.Tensor, layers: Sequence[Layer], facet: str = "token"
) -> list[TokenMap]:
    """The layers' maps of a normalised batch [B, 3, H, W], in the order asked.

    layers: "final" or indices of blocks or stages, negative from the end; facet: "token" for a layer's
    output, or the query / key / value projection of a transformer's block.
    """
    if facet != "token":
        return _attention_facets(model, batch, [int(layer) for layer in layers], facet)
    found: dict[Layer, TokenMap] = {}
    indices = [int(layer) for layer in layers if layer != "final"]
    if indices:
        wants_final = "final" in layers
        final, maps = _intermediates(model, batch, indices, wants_final)
        count = depth(model, facet)
        # timm answers in the order of depth, whatever the order asked for.
        by_depth = sorted(indices, key=lambda index: index % count)
        found.update(zip(by_depth, maps, strict=True))
    else:
        final = model.forward_features(batch)  # type: ignore[operator]
    if "final" in layers:
        found["final"] = _final(model, final, batch)
    return [found[layer] for layer in layers]


def _intermediates(
    model: nn.Module, batch: torch.Tensor, indices: list[int], wants_final: bool
) -> tuple[Any, list[TokenMap]]:
    """What the model gives at last (None unless wanted), and its layers' maps in the order of depth."""
    forward: Any = model.forward_intermediates
    takes = inspect.signature(forward).parameters
    prefixed = _prefix_tokens(model) > 0 and "return_prefix_tokens" in takes
    result = forward(
        batch,
        indices=indices,
        intermediates_only=not wants_final,
        stop_early=not wants_final,
        **({"return_prefix_tokens": True} if prefixed else {}),
    )
    final, maps = result if wants_final else (None, result)
    made = []
    for value in maps:
        patches, prefix = value if prefixed else (value, None)
        made.append(
            TokenMap(patches.flatten(2).transpose(1, 2), (patches.shape[2], patches.shape[3]), prefix)
        )
    return final, made


def _final(model: nn.Module, output: Any, batch: torch.Tensor) -> TokenMap:
    if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
        raise ValueError("its last output is neither one map nor one sequence of tokens")
    if output.ndim == 3:  # a transformer's tokens [B, P + N, D]
        return _tokens(output, batch, _prefix_tokens(model))
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        output = output.permute(0, 3, 1, 2)
    return TokenMap(output.flatten(2).transpose(1, 2), (output.shape[2], output.shape[3]))


def _tokens(output: torch.Tensor, batch: torch.Tensor, prefix: int) -> TokenMap:
    for first in dict.fromkeys((prefix, 1)):  # some models do not say that they have a class token
        grid = _grid(output.shape[1] - first, batch.shape[2] / batch.shape[3])
        if grid is not None:
            return TokenMap(output[:, first:], grid, output[:, :first] if first else None)
    raise ValueError(f"its {output.shape[1]} tokens fill no grid")


def _grid(count: int, aspect: float) -> tuple[int, int] | None:
    """Rows and columns of `count` square patches of an image of that height per width."""
    height = round(math.sqrt(count * aspect)) if count > 0 else 0
    return (height, count // height) if height and count % height == 0 else None


def _attention_facets(model: nn.Module, batch: torch.Tensor, layers: list[int], facet: str) -> list[TokenMap]:
    blocks: Any = model.blocks
    caught: dict[int, torch.Tensor] = {}
    hooks = [
        blocks[index].attn.qkv.register_forward_hook(
            lambda _module, _input, output, index=index: caught.__setitem__(index, output)
        )
        for index in layers
    ]
    try:
        last = max(index % len(blocks) for index in layers)
        model.forward_intermediates(  # type: ignore[operator]
            batch, indices=[last], stop_early=True, intermediates_only=True
        )
    finally:
        for hook in hooks:
            hook.remove()
    part, prefix = FACETS[facet], _prefix_tokens(model)
    return [_tokens(caught[index].chunk(3, dim=-1)[part], batch, prefix) for index in layers]


def _prefix_tokens(model: nn.Module) -> int:
    return int(getattr(model, "num_prefix_tokens", 0))
