"""Which of a timm model's layers can be asked for, and what it has to do so."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from cvgl_ray.errors import InputError

Layer = Literal["final"] | int


def depth(model: nn.Module, facet: str) -> int:
    """How many layers can be asked for by index."""
    return len(model.blocks) if facet != "token" else len(model.feature_info)  # type: ignore[arg-type]


def check_layers(model: nn.Module, layers: Sequence[Layer], facet: str, pooling: str) -> None:
    """Raise InputError for a layer, facet or class token that this model does not have."""
    numbered = [int(layer) for layer in layers if layer != "final"]
    name = type(model).__name__
    if pooling == "cls" and getattr(model, "cls_token", None) is None:
        raise InputError(
            f"pooling 'cls' needs a class token, and {name} has none; use 'gem', 'mean' or 'max'"
        )
    if facet != "token" and not _has_fused_qkv(model):
        raise InputError(f"facet {facet!r} needs blocks with one qkv projection, and {name} has none")
    if not numbered:
        return
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f'{name} gives no intermediate layers; use layers = ["final"]')
    count = depth(model, facet)
    for layer in numbered:
        if not -count <= layer < count:
            raise InputError(f"layer {layer} is not one of the {count} layers of {name} (0 to {count - 1})")
    if len({layer % count for layer in numbered}) < len(numbered):
        raise InputError(f"layers {numbered} name one of the {count} layers of {name} twice; name each once")


def _has_fused_qkv(model: nn.Module) -> bool:
    """Whether every block calls one linear qkv whose output a hook can catch (EVA's adds its bias apart)."""
    blocks = getattr(model, "blocks", None) or [None]
    attention = [getattr(block, "attn", None) for block in blocks]
    return all(
        getattr(part, "qkv", None) is not None and getattr(part, "q_bias", None) is None for part in attention
    )
