"""Steady extraction: the pipeline's backbone actors against the same backbone in one bare torch loop.

python experiments/benchmarks/extraction.py [--quick] [--backbone resnet18] [--image-size 224]
python experiments/benchmarks/extraction.py --gpu --precision bfloat16 --backbone vit_base_patch14_dinov2

Both get the same decoded uint8 batches, from memory. The bare loop normalises them, runs `forward_features`
with all cores, or the GPU, in one process and averages the map: in the usual memory format and channels last,
on whole batches and, on CPUs, on pieces as small as the product's (the fastest counts). The product does what
its recipe says: two layers, six rings, half precision rows through the object store.
"""

import itertools
import os
import statistics
from functools import partial
from typing import Any

import click
import numpy as np
import ray
import torch
from side_by_side import Race, line, race
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD

from cvgl_ray import config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.pixel_pipeline import _Embed
from cvgl_ray.features.backbone import CPU_PIXELS
from cvgl_ray.features.recipe import build_backbone

LAYOUTS = {"usual format": torch.contiguous_format, "channels last": torch.channels_last}


class Actor(_Embed):
    """The pipeline's actor, started without Ray Data."""

    def __init__(self, shared: list[ray.ObjectRef], device: str) -> None:  # Ray leaves a list's references
        super().__init__(shared[0], device)


def bare_loop(
    model: Any, batches: list[np.ndarray], layout: torch.memory_format, piece: int, device: str
) -> None:
    """What one writes without a library; the features end on the CPU."""
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    model.to(device, memory_format=layout)
    dtype = next(model.parameters()).dtype
    with torch.inference_mode():
        for batch in batches:
            for pixels in torch.from_numpy(batch[:, 0]).split(piece):
                images = (pixels.to(device).float() / 255 - mean) / std
                tokens = model.forward_features(images.to(dtype, memory_format=layout))
                (tokens.flatten(2).mean(2) if tokens.ndim == 4 else tokens.mean(1)).float().cpu()


@click.command()
@click.option("--backbone", "name", default="mobilenetv2_100", show_default=True, help="random weights")
@click.option("--image-size", default=224, show_default=True, help="px")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--batches", default=4, show_default=True, help="per core or GPU")
@click.option("--repeats", default=5, show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--gpu", is_flag=True, help="one actor on one GPU, against the loop on it")
@click.option("--quick", is_flag=True, help="small batches of 96 px")
def main(
    name: str,
    image_size: int,
    batch_size: int,
    batches: int,
    repeats: int,
    precision: Any,
    gpu: bool,
    quick: bool,
) -> None:
    """Print the ratio of images per second."""
    if quick:
        image_size, batch_size, batches, repeats = 96, 16, 2, 3
    section = config.Backbone(name=name, pretrained=False, image_size=image_size, precision=precision)
    cores, device = (1, "cuda") if gpu else (os.cpu_count() or 1, "cpu")
    if not gpu:
        torch.set_num_threads(cores)
    rng = np.random.default_rng(0)
    shape = (batch_size, 1, 3, image_size, image_size)
    pixels = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(batches * cores)]

    session.connect()
    shared = ray.put(build_backbone(section))
    actor: Any = ray.remote(num_cpus=1, num_gpus=int(gpu))(Actor)
    actors = [actor.remote([shared], device) for _ in range(cores)]
    rows = [ray.put({"view": "view", "pixels": batch}) for batch in pixels]

    def product() -> None:
        ray.get([actors[i % cores].__call__.remote(row) for i, row in enumerate(rows)])

    model = build_backbone(section).model
    product()
    races = {}
    pieces = [batch_size] if gpu else [batch_size, max(1, CPU_PIXELS // image_size**2)]
    for (words, layout), piece in itertools.product(LAYOUTS.items(), pieces):
        bare_loop(model, pixels[:1], layout, piece, device)
        peer = partial(bare_loop, model, pixels, layout, piece, device)
        races[f"{words} by {piece}"] = race(product, peer, repeats)
    _report(f"{name} at {image_size} px, {precision}, {device}", races, sum(map(len, pixels)))


def _report(what: str, races: dict[str, Race], images: int) -> None:
    worst = min(races.values(), key=lambda result: result.ratio)
    figures = f"product {images / statistics.median(worst.product_s):.1f} images/s"
    peers = [f"{words} {images / statistics.median(result.peer_s):.1f}" for words, result in races.items()]
    print(line(f"steady extraction, {what}", worst, 0.95, figures, "bare loop " + ", ".join(peers)))


if __name__ == "__main__":
    main()
