"""The gradient M-step of one worker against the same step written out in torch.

python experiments/benchmarks/mstep.py [--quick] [--batch-size 512] [--dimension 1280]

Same features (half precision), pairs, adapter, loss terms and optimiser; the bare loop knows nothing of
workers, siblings or rows without a label.
"""

import click
import numpy as np
import torch
import torch.nn.functional as F
from estep import two_views
from side_by_side import line, race

from cvgl_ray.config import Config, load_config
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.matching import PseudoLabels, pseudo_labels
from cvgl_ray.features.views import view_mean


class BareStep:
    """A linear encoder and decoder with AdamW, symmetric InfoNCE and squared reconstruction."""

    def __init__(
        self, query: torch.Tensor, reference: torch.Tensor, centre: torch.Tensor, batch: int
    ) -> None:
        self.sides, self.centre, self.batch = (query, reference), centre, batch
        dimension = query.shape[1]
        self.encoder, self.decoder = (torch.nn.Linear(dimension, dimension) for _ in range(2))
        self.scale = torch.nn.Parameter(torch.tensor(14.28).log())
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters(), self.scale]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=2e-4)

    def __call__(self, steps: int) -> None:
        order = torch.randperm(len(self.sides[0]))
        for step in range(steps):
            chosen = order[step * self.batch % len(order) :][: self.batch]
            rows = [F.normalize(side[chosen].float(), dim=-1) for side in self.sides]
            rows = [F.normalize(row - mean, dim=-1) for row, mean in zip(rows, self.centre, strict=True)]
            codes = [self.encoder(row) for row in rows]
            z_query, z_reference = (F.normalize(code, dim=-1) for code in codes)
            logits, target = self.scale.exp() * z_query @ z_reference.T, torch.arange(len(chosen))
            halves = [F.cross_entropy(side, target, label_smoothing=0.1) for side in (logits, logits.T)]
            loss = (halves[0] + halves[1]) / 2
            for code, row in zip(codes, rows, strict=True):
                loss = loss + (self.decoder(code) - row).square().sum(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_value_(self.parameters, 100.0)
            self.optimizer.step()


def configured(steps: int, batch_size: int) -> Config:
    return load_config(
        None,
        ("adapter.kind=linear", f"mstep.steps_per_round={steps}", f"mstep.batch_size={batch_size}"),
    )


def all_true_pairs(query: np.ndarray, reference: np.ndarray) -> PseudoLabels:
    """Labels of an E-step without noise: row i belongs to row i."""
    labels = pseudo_labels(query[:, :64], reference[:, :64])
    every = np.arange(len(query))
    return PseudoLabels(**{**vars(labels), "of_query": every, "of_reference": every})


@click.command()
@click.option("--dimension", default=1280, show_default=True)
@click.option("--batch-size", default=512, show_default=True)
@click.option("--steps", default=3, show_default=True, help="a repetition")
@click.option("--repeats", default=7, show_default=True)
@click.option("--quick", is_flag=True, help="batches of 128 rows of 256")
def main(dimension: int, batch_size: int, steps: int, repeats: int, quick: bool) -> None:
    """Print the ratio of rows a second."""
    if quick:
        dimension, batch_size, repeats = 256, 128, 5
    query, reference = two_views(8 * batch_size, dimension)
    halves = query.astype(np.float16), reference.astype(np.float16)
    centre = torch.from_numpy(np.stack([view_mean(side) for side in halves]))
    learner = build_learner(configured(steps, batch_size).learning, dimension, centre)
    labels = all_true_pairs(query, reference)
    bare = BareStep(torch.from_numpy(halves[0]), torch.from_numpy(halves[1]), centre, batch_size)
    rng = np.random.default_rng(0)

    def product() -> None:
        learner.m_step(labels, *halves, rng)

    product()
    bare(steps)
    result = race(product, lambda: bare(steps), repeats)
    speed = 2 * batch_size * steps / sorted(result.product_s)[len(result.product_s) // 2]
    print(
        line(
            f"M-step, {batch_size} pairs of {dimension}",
            result,
            0.9,
            result.by_cpu(),
            f"product {speed:.0f} rows/s",
        )
    )


if __name__ == "__main__":
    main()
