"""A model trained for this task with pairs, as a file that `backbone.checkpoint` takes.

    python experiments/task_model.py --root DIR --checkpoint FILE --output task.pth [--epochs 20] [--seed 0]

DIR: a data set in University-1652's layout, such as `cvgl-ray synth --places 200` renders. The whole backbone
is trained, from FILE's weights, by symmetric InfoNCE between a drone image and the tile of each place of a
batch, as Sample4Geo does; its checkpoint is named like theirs ("model.*" beside "logit_scale"). Labels are
read. No published checkpoint of this kind is at hand, so this one stands for them.
"""

import math
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

from cvgl_ray.catalog import layouts
from cvgl_ray.features.checkpoint import load_weights, read_checkpoint

VIEWS = "drone", "satellite"
BATCH = 32  # places


class Model(nn.Module):
    """One backbone for both views: normalised embeddings of pictures [n, 3, S, S]."""

    def __init__(self, name: str, checkpoint: str) -> None:
        super().__init__()
        self.model = timm.create_model(name, num_classes=0)
        load_weights(self.model, name, checkpoint, read_checkpoint(checkpoint))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """[n, D], of unit length."""
        return F.normalize(self.model(pictures), dim=1)


def pairs(root: Path) -> list[tuple[list[str], list[str]]]:
    """By training place, its drone images and its tiles."""
    catalog = layouts.scan("university1652", str(root), *VIEWS, ()).select(split="train")
    labels = layouts.load_labels("university1652", str(root), catalog)
    assert labels is not None
    places: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for number, view in enumerate(VIEWS):
        images = catalog.select(view=view)
        for place, uri in zip(labels.place_ids(images.image_ids), images.uris, strict=True):
            places[str(place)][number].append(uri)
    return [both for _, both in sorted(places.items()) if all(both)]


def contrast(model: Model, drone: torch.Tensor, satellite: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE with label smoothing of 0.1 (Sample4Geo, Deuser et al., ICCV 2023)."""
    embedded = model(torch.cat([drone, satellite]))
    logits = model.logit_scale.exp() * embedded[: len(drone)] @ embedded[len(drone) :].T
    right = torch.arange(len(drone))
    losses = [F.cross_entropy(scores, right, label_smoothing=0.1) for scores in (logits, logits.T)]
    return torch.stack(losses).mean()


@click.command()
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False), required=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--name", default="mobilenetv2_100", show_default=True, help="timm's, of the backbone.")
@click.option("--size", default=128, show_default=True, help="px")
@click.option("--epochs", default=20, show_default=True)
@click.option("--rate", default=3e-4, show_default=True, help="At its peak; a cosine to 0.")
@click.option("--seed", default=0, show_default=True)
def main(
    root: Path, checkpoint: str, output: Path, name: str, size: int, epochs: int, rate: float, seed: int
) -> None:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, places = Model(name, checkpoint).train(), pairs(root)
    config = resolve_data_config({"input_size": (3, size, size)}, model=model.model)
    read = create_transform(**{**config, "crop_pct": 1.0})

    def batch(view: int, chosen: np.ndarray) -> torch.Tensor:
        uris = [places[place][view][rng.integers(len(places[place][view]))] for place in chosen]
        pictures = torch.stack([read(Image.open(uri).convert("RGB")) for uri in uris])
        return torch.stack([torch.rot90(one, int(rng.integers(4)), (1, 2)) for one in pictures])

    steps = epochs * (len(places) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for epoch in range(epochs):
        order, losses = rng.permutation(len(places)), []
        for start in range(0, len(places) // BATCH * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            loss = contrast(model, batch(0, chosen), batch(1, chosen))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        click.echo(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}")
    torch.save(model.state_dict(), output)


if __name__ == "__main__":
    main()
