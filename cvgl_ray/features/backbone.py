"""A frozen timm model: pictures in, one feature row an image out."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.pooling import pool
from cvgl_ray.features.pretransform import Pretransform, central_crop, orient

Layer = Literal["final"] | int
FACETS = {"query": 0, "key": 1, "value": 2}  # their order in timm's fused qkv projection


class FrozenBackbone:
    """A timm model in evaluation mode with its own preprocessing; no gradient ever reaches it.

    layers: "final" (the model's last map or tokens) or indices of blocks / stages; each layer's pooled
    vector is L2-normalised, then all are concatenated and the whole is L2-normalised.
    facet: "token" for a layer's output, or the query / key / value projection of a ViT block.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[Layer] = ("final",),
        facet: str = "token",
        pooling: str = "gem",
        gem_power: float = 3.0,
        normalize_tokens: bool = False,
        image_size: int = 0,
        crop_fraction: float = 0.0,
        interpolation: str = "",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.layers, self.facet = tuple(layers), facet
        self.pooling, self.gem_power, self.normalize_tokens = pooling, gem_power, normalize_tokens
        self.device, self.dtype = torch.device(device), dtype
        _check_layers(model, self.layers, facet)
        self.model = model.eval().requires_grad_(False).to(self.device, dtype)
        data = timm.data.resolve_model_data_config(model)
        size = image_size or data["input_size"][-1]
        self._resize = timm.data.create_transform(
            input_size=(3, size, size),
            crop_pct=crop_fraction or data["crop_pct"],
            crop_mode=data["crop_mode"],
            interpolation=interpolation or data["interpolation"],
            normalize=False,
        )
        self._mean, self._std = (
            torch.tensor(data[key], device=self.device).view(1, 3, 1, 1) for key in ("mean", "std")
        )

    def to(self, device: str) -> None:
        """Move the model to another device, such as "cuda"."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    def prepare(self, image: Image.Image, crops: Sequence[float] = (1.0,)) -> np.ndarray:
        """Resize an RGB picture, once a central crop, to the model's input: [len(crops), 3, H, W] uint8."""
        return np.stack([np.asarray(self._resize(central_crop(image, share))) for share in crops])

    @torch.inference_mode()
    def embed(self, images: np.ndarray, pretransform: Pretransform) -> np.ndarray:
        """Features of prepared pictures [B, crops, 3, H, W] uint8 -> [B, D] float32.

        The mean, over crops and orientations, of each variant's L2-normalised feature, L2-normalised again.
        """
        total = torch.zeros((), device=self.device)
        for crop in range(images.shape[1]):
            batch = torch.from_numpy(np.ascontiguousarray(images[:, crop])).to(self.device)
            batch = (batch.to(torch.float32) / 255 - self._mean) / self._std
            for turned in orient(batch, pretransform.orientations, pretransform.flip):
                total = total + self._forward(turned.to(self.dtype))
        return F.normalize(total, dim=-1).cpu().numpy()

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        vectors = []
        for patches, prefix in self._maps(batch):
            if self.normalize_tokens:
                patches = F.normalize(patches, dim=-1)
            prefix = None if prefix is None else prefix.float()
            pooled = pool(patches.float(), prefix, self.pooling, self.gem_power)
            vectors.append(F.normalize(pooled, dim=-1))
        return F.normalize(torch.cat(vectors, dim=-1), dim=-1)

    def _maps(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Per layer: patch tokens [B, N, D] and, where the model has them, prefix tokens [B, P, D]."""
        if self.facet != "token":
            return self._attention_facets(batch)
        indices = [layer for layer in self.layers if layer != "final"]
        found: dict[Layer, tuple[torch.Tensor, torch.Tensor | None]] = {}
        if indices:
            prefixed = getattr(self.model, "num_prefix_tokens", 0) > 0
            more = {"return_prefix_tokens": True} if prefixed else {}
            stop = "final" not in self.layers
            result: Any = self.model.forward_intermediates(  # type: ignore[operator]
                batch, indices=indices, intermediates_only=stop, stop_early=stop, **more
            )
            final, maps = (None, result) if stop else result
            for index, value in zip(indices, maps, strict=True):
                patches, prefix = value if prefixed else (value, None)
                found[index] = patches.flatten(2).transpose(1, 2), prefix
        else:
            final = self.model.forward_features(batch)  # type: ignore[operator]
        if final is not None:
            found["final"] = self._split(final)
        return [found[layer] for layer in self.layers]

    def _split(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if output.ndim == 3:  # a transformer's tokens [B, P + N, D]
            prefix = getattr(self.model, "num_prefix_tokens", 0)
            return output[:, prefix:], output[:, :prefix]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return output.flatten(1, 2), None
        return output.flatten(2).transpose(1, 2), None

    def _attention_facets(self, batch: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        blocks, which = self.model.blocks, FACETS[self.facet]
        caught: dict[int, torch.Tensor] = {}
        hooks = [
            blocks[index].attn.qkv.register_forward_hook(  # type: ignore[index, union-attr]
                lambda _module, _input, output, index=index: caught.__setitem__(index, output)
            )
            for index in self.layers
        ]
        try:
            last = max(int(index) for index in self.layers)
            self.model.forward_intermediates(  # type: ignore[operator]
                batch, indices=[last], stop_early=True, intermediates_only=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        facets = [caught[int(index)].chunk(3, dim=-1)[which] for index in self.layers]
        return [(tokens[:, prefix:], tokens[:, :prefix]) for tokens in facets]


def _check_layers(model: nn.Module, layers: Sequence[Layer], facet: str) -> None:
    """One sentence for a layer or facet that this model does not have."""
    numbered = [layer for layer in layers if layer != "final"]
    name = type(model).__name__
    if facet != "token" and not hasattr(getattr(model, "blocks", [None])[0], "attn"):
        raise InputError(f"facet {facet!r} needs a transformer with attention blocks, and {name} is not one")
    if not numbered:
        return
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f'{name} gives no intermediate layers; use layers = ["final"]')
    count = len(model.blocks) if facet != "token" else len(model.feature_info)  # type: ignore[arg-type]
    for layer in numbered:
        if not -count <= int(layer) < count:
            raise InputError(f"layer {layer} is not one of the {count} layers of {name} (0 to {count - 1})")
