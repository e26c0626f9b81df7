"""A frozen timm model: prepared pictures in, one feature row per image out."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.folding import fold_batch_norms
from cvgl_ray.features.layers import Layer, check_layers
from cvgl_ray.features.pooling import pool, ring_members
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.pretransform import Pretransform, Variant, by_crop, turned
from cvgl_ray.features.tokens import token_maps
from cvgl_ray.features.views import unit_rows

# Pixels of the images taken at a time on a CPU. The maps of many outgrow its cache, and memory above 32 MiB
# is asked of the system anew each time: 64 images of 224 px take a MobileNet twice as long as four
# (experiments/LOG.md). Of small images four would be too few: each call rearranges the weights.
CPU_PIXELS = 4 * 224 * 224


class FrozenBackbone:
    """A timm model in evaluation mode with its own preprocessing; no gradient ever reaches it.

    layers: "final" (the model's last map or tokens) or indices of blocks / stages, negative from the end.
    rings: outer radii of concentric rings pooled apart (see pooling.ring_members); none: the whole map.
    Every pooled vector is L2-normalised, then all are concatenated and the whole is L2-normalised.
    image_size, crop_fraction, interpolation: of its input (see preparing.Preparing).
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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        import timm  # here: it takes seconds, which whoever makes no model need not wait

        self.layers, self.facet = tuple(layers), facet
        self.pooling, self.gem_power, self.rings = pooling, gem_power, tuple(rings)
        self.normalize_tokens = normalize_tokens
        self.device, self.dtype = torch.device("cpu"), dtype
        check_layers(model, self.layers, facet, pooling)
        self.model = model.eval().requires_grad_(False)
        self.model.to(self.device, dtype)
        if all(parameter.ndim < 5 for parameter in model.parameters()):
            # Channels last: convolutions on CPUs run up to 1.4 times faster (experiments/LOG.md).
            self.model.to(memory_format=torch.channels_last)
        data = self.preprocessing = timm.data.resolve_model_data_config(model)
        self.preparing = Preparing(data, image_size, crop_fraction, interpolation)
        self._mean, self._std = (
            torch.tensor(data[key], device=self.device).view(1, 3, 1, 1) for key in ("mean", "std")
        )

    def to(self, device: str) -> None:
        """Move the model to another device, such as "cuda"."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    @torch.no_grad()  # inference_mode would leave weights that cannot move to a GPU afterwards
    def fold(self) -> None:
        """Make a convolutional model of float32 quicker; its features stay the same but for rounding.

        In half precision rounding is too coarse to tell whether they do: such a model stays as it is.
        """
        if self.dtype != torch.float32:
            return
        sample = torch.rand(2, 3, *self.preparing.shape, generator=torch.Generator().manual_seed(0))
        sample = sample.to(self.device, self.dtype, memory_format=torch.channels_last)

        def outputs() -> list[torch.Tensor]:
            maps = token_maps(self.model, sample, self.layers, self.facet)
            return [part for layer in maps for part in layer.tensors()]

        fold_batch_norms(self.model, outputs)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Take one blank picture. Raises InputError where the model cannot, at the size that is configured.

        Every architecture has its own way to fail at a size, or with outputs, that it was not made for.
        """
        shape, name = self.preparing.shape, type(self.model).__name__
        self.model.float()  # not every operation is there in half precision on a CPU
        try:
            self._forward(torch.zeros(1, 3, *shape, device=self.device))
        except InputError:
            raise
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            own = tuple(self.preprocessing["input_size"][1:])
            advice = "use other layers or another backbone"
            if shape != own:
                advice = f"set backbone.image_size = {own[1]}, its own, or use another backbone"
            raise InputError(
                f"{name} gives no features of images of {shape[0]} x {shape[1]} px ({reason}); {advice}"
            ) from error
        finally:
            self.model.to(self.dtype)

    def embed(
        self, images: np.ndarray, pretransform: Pretransform, pool: ThreadPoolExecutor | None = None
    ) -> np.ndarray:
        """Features of prepared pictures [B, crops, 3, H, W] uint8 -> [B, D] float32.

        The mean of `vectors` over the pre-transform's variants, L2-normalised.
        """
        return unit_rows(self.vectors(images, pretransform.variants, pool).sum(axis=1))

    @torch.inference_mode()
    def vectors(
        self, images: np.ndarray, variants: Sequence[Variant], pool: ThreadPoolExecutor | None = None
    ) -> np.ndarray:
        """Each variant's L2-normalised vector: pictures [B, crops, 3, H, W] uint8 -> [B, V, D] float32.

        images: a view's, prepared once per crop in the order of `by_crop(variants)`, crop by crop.
        pool: takes the variants at a time; the result is the same to the bit.
        Raises InputError for vectors that are not finite: broken weights, or a precision of too small range.
        """
        size = len(images) if self.device.type != "cpu" else CPU_PIXELS // math.prod(images.shape[-2:])
        found = []
        for part in torch.from_numpy(np.ascontiguousarray(images)).split(max(1, size)):
            inputs = self._inputs(part, variants)
            made = pool.map(self._forward, inputs) if pool else map(self._forward, inputs)
            found.append(torch.stack([vectors.cpu() for vectors in made], dim=1))
        vectors: np.ndarray = torch.cat(found).numpy()
        if not np.isfinite(vectors).all():  # before they reach the store, where they would count as done
            raise InputError(
                f"the backbone gives features that are not finite in {self.dtype}; check its weights, or set "
                'backbone.precision = "float32"'
            )
        return vectors

    def _inputs(self, images: torch.Tensor, variants: Sequence[Variant]) -> Iterator[torch.Tensor]:
        """The model's inputs [b, 3, H, W], crop by crop, each in all its variants."""
        for crop, made in enumerate(by_crop(variants).values()):
            batch = images[:, crop].to(self.device).float()
            batch = (batch / 255 - self._mean) / self._std
            for variant in made:
                yield turned(batch, variant).to(self.dtype, memory_format=torch.channels_last)

    @torch.inference_mode()  # which holds for one thread
    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        vectors = []
        for layer in token_maps(self.model, batch, self.layers, self.facet):
            patches = layer.patches.float()
            if self.normalize_tokens:
                patches = F.normalize(patches, dim=-1)
            prefix = None if layer.prefix is None else layer.prefix.float()
            rings = ring_members(layer.grid, self.rings, self.device) if self.rings else [slice(None)]
            for members in rings:
                pooled = pool(patches[:, members], prefix, self.pooling, self.gem_power)
                vectors.append(F.normalize(pooled, dim=-1))
        return F.normalize(torch.cat(vectors, dim=-1), dim=-1)
