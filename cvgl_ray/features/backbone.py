"""A frozen timm model: pictures in, one feature row an image out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.folding import fold_batch_norms
from cvgl_ray.features.layers import Layer, check_layers, depth
from cvgl_ray.features.pooling import pool, ring_members
from cvgl_ray.features.pretransform import Pretransform, central_crop, orient, projections

FACETS = {"query": 0, "key": 1, "value": 2}  # their order in timm's fused qkv projection
# Pixels of the images taken at a time on a CPU. The maps of many outgrow its cache, and memory above 32 MiB
# is asked of the system anew each time: 64 images of 224 px take a MobileNet twice as long as four
# (experiments/LOG.md). Of small images four would be too few: each call rearranges the weights.
CPU_PIXELS = 4 * 224 * 224


@dataclass(frozen=True)
class TokenMap:
    """A layer's output: patch tokens [B, h * w, D], row-major, and prefix tokens [B, P, D] if it has any."""

    patches: torch.Tensor
    grid: tuple[int, int]
    prefix: torch.Tensor | None = None


class FrozenBackbone:
    """A timm model in evaluation mode with its own preprocessing; no gradient ever reaches it.

    layers: "final" (the model's last map or tokens) or indices of blocks / stages, negative from the end.
    rings: outer radii of concentric rings pooled apart (see pooling.ring_members); none: the whole map.
    Every pooled vector is L2-normalised, then all are concatenated and the whole is L2-normalised.
    image_size: px of a square input, or height and width of a strip (see pretransform.projections).
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
        rings: Sequence[float] = (),
        normalize_tokens: bool = False,
        image_size: int | tuple[int, int] = 0,
        crop_fraction: float = 0.0,
        interpolation: str = "",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        import timm  # here: it takes seconds, which whoever makes no model need not wait

        self.layers, self.facet = tuple(layers), facet
        self.pooling, self.gem_power, self.rings = pooling, gem_power, tuple(rings)
        self.normalize_tokens = normalize_tokens
        self.device, self.dtype = torch.device(device), dtype
        check_layers(model, self.layers, facet, pooling)
        # Channels last: convolutions on CPUs run up to 1.4 times faster (experiments/LOG.md).
        self.model = model.eval().requires_grad_(False)
        self.model.to(self.device, dtype).to(memory_format=torch.channels_last)
        data = self.preprocessing = timm.data.resolve_model_data_config(model)
        self._projections = projections(data, image_size, crop_fraction, interpolation)
        self._mean, self._std = (
            torch.tensor(data[key], device=self.device).view(1, 3, 1, 1) for key in ("mean", "std")
        )

    def to(self, device: str) -> None:
        """Move the model to another device, such as "cuda"."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    @torch.inference_mode()
    def fold(self) -> None:
        """Make a convolutional model of float32 quicker; its features stay the same but for rounding.

        In half precision rounding is too coarse to tell whether they do: such a model stays as it is.
        """
        if self.dtype != torch.float32:
            return
        shape = next(iter(self._projections.values())).shape
        sample = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
        sample = sample.to(self.device, self.dtype, memory_format=torch.channels_last)

        def outputs() -> list[torch.Tensor]:
            parts = [part for layer in self._maps(sample) for part in (layer.patches, layer.prefix)]
            return [part for part in parts if part is not None]

        fold_batch_norms(self.model, outputs)

    def prepare(self, image: Image.Image, pretransform: Pretransform) -> np.ndarray:
        """Bring an RGB picture, once a central crop, to the model's input: [crops, 3, H, W] uint8."""
        project = self._projections[pretransform.projection].apply
        return np.stack([np.asarray(project(central_crop(image, share))) for share in pretransform.crops])

    def sufficient_side(self, pretransform: Pretransform) -> int:
        """Px of a picture's shorter side beyond which a feature hardly changes.

        Twice what `prepare` brings it to for the smallest crop: the other half is for its antialiasing.
        """
        return 2 * math.ceil(self._projections[pretransform.projection].side / min(pretransform.crops))

    @torch.inference_mode()
    def embed(self, images: np.ndarray, pretransform: Pretransform) -> np.ndarray:
        """Features of prepared pictures [B, crops, 3, H, W] uint8 -> [B, D] float32.

        The mean, over crops and orientations, of each variant's L2-normalised feature, L2-normalised again.
        Raises InputError for features that are not finite: broken weights, or a precision of too small range.
        """
        size = len(images) if self.device.type != "cpu" else CPU_PIXELS // math.prod(images.shape[-2:])
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(max(1, size))
        features = torch.cat([self._mean_of_variants(part, pretransform) for part in parts]).numpy()
        if not np.isfinite(features).all():  # before they reach the store, where they would count as done
            raise InputError(
                f"the backbone gives features that are not finite in {self.dtype}; check its weights, or set "
                'backbone.precision = "float32"'
            )
        return features

    def _mean_of_variants(self, images: torch.Tensor, pretransform: Pretransform) -> torch.Tensor:
        """`embed` of images [b, crops, 3, H, W] uint8 that are taken at once: [b, D] float32 on the CPU."""
        total = torch.zeros((), device=self.device)
        for crop in range(images.shape[1]):
            batch = images[:, crop].to(self.device).float()
            batch = (batch / 255 - self._mean) / self._std
            for turned in orient(batch, pretransform):
                turned = turned.to(self.dtype, memory_format=torch.channels_last)
                total = total + self._forward(turned)
        return F.normalize(total, dim=-1).cpu()

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        vectors = []
        for layer in self._maps(batch):
            patches = layer.patches.float()
            if self.normalize_tokens:
                patches = F.normalize(patches, dim=-1)
            prefix = None if layer.prefix is None else layer.prefix.float()
            for members in ring_members(layer.grid, self.rings) if self.rings else [slice(None)]:
                pooled = pool(patches[:, members], prefix, self.pooling, self.gem_power)
                vectors.append(F.normalize(pooled, dim=-1))
        return F.normalize(torch.cat(vectors, dim=-1), dim=-1)

    def _maps(self, batch: torch.Tensor) -> list[TokenMap]:
        if self.facet != "token":
            return self._attention_facets(batch)
        found: dict[Layer, TokenMap] = {}
        indices = [layer for layer in self.layers if layer != "final"]
        final = None
        if indices:
            prefixed = self._prefix_tokens > 0
            more = {"return_prefix_tokens": True} if prefixed else {}
            stop = "final" not in self.layers
            result: Any = self.model.forward_intermediates(  # type: ignore[operator]
                batch, indices=indices, intermediates_only=stop, stop_early=stop, **more
            )
            final, maps = (None, result) if stop else result
            # timm answers in the order of depth, whatever the order asked for.
            by_depth = sorted(indices, key=lambda index: int(index) % self._depth)
            for index, value in zip(by_depth, maps, strict=True):
                patches, prefix = value if prefixed else (value, None)
                grid = (patches.shape[2], patches.shape[3])
                found[index] = TokenMap(patches.flatten(2).transpose(1, 2), grid, prefix)
        else:
            final = self.model.forward_features(batch)  # type: ignore[operator]
        if final is not None:
            found["final"] = self._final(final, batch)
        return [found[layer] for layer in self.layers]

    def _final(self, output: torch.Tensor, batch: torch.Tensor) -> TokenMap:
        if output.ndim == 3:  # a transformer's tokens [B, P + N, D]
            return self._tokens(output, batch)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            output = output.permute(0, 3, 1, 2)
        return TokenMap(output.flatten(2).transpose(1, 2), (output.shape[2], output.shape[3]))

    def _tokens(self, output: torch.Tensor, batch: torch.Tensor) -> TokenMap:
        patches, prefix = output[:, self._prefix_tokens :], output[:, : self._prefix_tokens]
        count = patches.shape[1]
        height = round(math.sqrt(count * batch.shape[2] / batch.shape[3]))  # patches are square
        assert count % height == 0
        return TokenMap(patches, (height, count // height), prefix)

    def _attention_facets(self, batch: torch.Tensor) -> list[TokenMap]:
        blocks, which = self.model.blocks, FACETS[self.facet]
        caught: dict[int, torch.Tensor] = {}
        hooks = [
            blocks[index].attn.qkv.register_forward_hook(  # type: ignore[index, union-attr]
                lambda _module, _input, output, index=index: caught.__setitem__(index, output)
            )
            for index in self.layers
        ]
        try:
            last = max(int(index) % self._depth for index in self.layers)
            self.model.forward_intermediates(  # type: ignore[operator]
                batch, indices=[last], stop_early=True, intermediates_only=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        return [self._tokens(caught[int(index)].chunk(3, dim=-1)[which], batch) for index in self.layers]

    @property
    def _prefix_tokens(self) -> int:
        return int(getattr(self.model, "num_prefix_tokens", 0))

    @property
    def _depth(self) -> int:
        return depth(self.model, self.facet)
