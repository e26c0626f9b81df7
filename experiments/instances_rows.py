"""Learners beside the product's own: instances' differences or noise in the closed form and by gradient."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.linalg import helmert

from cvgl_ray.config import Config
from cvgl_ray.em.attenuation import Attenuation
from cvgl_ray.em.batches import Batch
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.closed_form import ClosedFormLearner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.learner import Learner

Variants = list[dict[str, np.ndarray]]  # of each view, by kind: k variants of its images [k, n, D]
Make = Callable[[Config, int, Variants], Learner]  # the configuration, the dimension, the variants
WIDEST_LINEAR = 2048  # dimensions; a square of more numbers learns for minutes
COPIES, PAIRS = 3, 256
WEIGHTS = (0.1, 0.3, 1.0)


class Extended(Attenuation):
    """Fitted to what `extend` [m, D] makes of the differences [n, D]; the floor is the mean of n eigenvalues.

    pooled: of m, as the product would have it, whose attenuation grows stronger with every row.
    """

    def __init__(self, dimension: int, rank: int, extend: Callable[..., torch.Tensor], pooled: bool) -> None:
        super().__init__(dimension, rank, norm="none")
        self.extend, self.pooled = extend, pooled

    def fit(self, differences: torch.Tensor, shrinkage: float) -> None:
        """See attenuation.pair_attenuation; by the Gram matrix, since rows are fewer than dimensions."""
        rows = self.extend(differences)
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        floor = shrinkage * values.sum() / min(len(rows if self.pooled else differences), self.dimension)
        kept = values > 1e-6 * values[-1]
        kept[: -len(self.factors)] = False
        found = vectors[:, kept].T @ rows / values[kept].sqrt()[:, None]
        self.directions.zero_()[: len(found)] = found
        self.factors.fill_(1.0)[: len(found)] = torch.sqrt(floor / ((1 - shrinkage) * values[kept] + floor))


def closed(
    config: Config,
    dimension: int,
    variants: Variants,
    *,
    kinds: tuple[str, ...] = (),
    weight: float = 0.0,
    pooled: bool = False,
    shrinkage: float = 0.0,
    noise: float = 0.0,
    dropout: float = 0.0,
) -> Learner:
    """The product's learner, with the kinds' instances, another shrinkage, or noisy copies of differences."""
    parts = [np.empty((0, dimension), np.float32)]
    parts += [contrasts(view[kind]) for kind in kinds for view in variants if len(view[kind]) > 1]
    rows = torch.from_numpy(np.concatenate(parts))
    generator = torch.Generator().manual_seed(config.run.seed)

    def extend(differences: torch.Tensor) -> torch.Tensor:
        if noise or dropout:
            size = noise * differences.square().mean().sqrt()
            copies = differences.repeat(COPIES, 1)
            keep = torch.rand(copies.shape, generator=generator) >= dropout
            return copies * keep + size * torch.randn(copies.shape, generator=generator)
        return torch.cat([differences, (weight * len(differences) / max(1, len(rows))) ** 0.5 * rows])

    adapter = Extended(dimension, config.adapter.rank, extend, pooled)
    return ClosedFormLearner(adapter, shrinkage or config.adapter.shrinkage, config.adapter.siblings)


def contrasts(variants: np.ndarray) -> np.ndarray:
    """Differences [(k - 1) n, D] whose mean d d^T / 2 is the covariance within the k variants [k, n, D]."""
    mixed = np.tensordot(helmert(len(variants)), variants, axes=1) * 2**0.5
    return mixed.reshape(-1, variants.shape[-1]).astype(np.float32)


class Augmented(GradientLearner):
    """Noise on both views' rows, and an InfoNCE of two variants [2, n, D] of PAIRS images with a weight."""

    weight, noise, dropout = 0.0, 0.0, 0.0
    variants: torch.Tensor
    rng: np.random.Generator

    def _loss(self, batch: Batch, query: np.ndarray, reference: np.ndarray) -> dict[str, torch.Tensor]:
        terms = super()._loss(batch, self._spoilt(query), self._spoilt(reference))
        if self.weight:
            chosen = self.rng.choice(
                self.variants.shape[1], min(PAIRS, self.variants.shape[1]), replace=False
            )
            rows = np.arange(len(chosen))
            one, other = self.variants[:, torch.from_numpy(chosen)]
            valid = torch.ones(len(rows), dtype=torch.bool)
            more = self.objective(one, valid, other, valid, Batch(rows, rows, rows, rows))
            terms["loss"] = terms["loss"] + self.weight * more["info_nce"]
        return terms

    def _spoilt(self, rows: np.ndarray) -> np.ndarray:
        keep = self.rng.random(rows.shape, dtype=np.float32) >= self.dropout
        size = self.noise / rows.shape[1] ** 0.5
        return rows * keep + np.float32(size) * self.rng.standard_normal(rows.shape, dtype=np.float32)


def linear(
    config: Config, dimension: int, variants: Variants, *, kind: str = "", **settings: float
) -> Learner:
    """The gradient learner, identity at first, with what `Augmented` adds."""
    section = config.adapter.model_copy(update={"kind": "linear"})
    plain = build_learner(config.model_copy(update={"adapter": section}), dimension)
    assert isinstance(plain, GradientLearner)
    learner = Augmented(plain.objective, config.mstep)
    learner.rng = np.random.default_rng(config.run.seed)
    if kind:
        ends = [view[kind][[0, -1]] for view in variants if len(view[kind]) > 1]
        learner.variants = torch.from_numpy(np.concatenate(ends, axis=1))
    for name, value in settings.items():
        setattr(learner, name, value)
    return learner


def closed_rows() -> dict[str, Make]:
    """The first table: the product, then one thing more."""
    sets: dict[str, tuple[str, ...]] = {
        kind: (kind,) for kind in ("headings", "crops", "photometric", "scale")
    }
    sets["headings and crops"] = ("headings", "crops")
    return {
        "the product": closed,
        **{
            f"{name}, {w}": partial(closed, kinds=kinds, weight=w)
            for name, kinds in sets.items()
            for w in WEIGHTS
        },
        "headings, 3.0": partial(closed, kinds=("headings",), weight=3.0),
        "headings and crops, 0.3, floor of all rows": partial(
            closed, kinds=sets["headings and crops"], weight=0.3, pooled=True
        ),
        **{
            f"{name}, {w}, shrinkage {a}": partial(closed, kinds=sets[name], weight=w, shrinkage=a)
            for name, w, a in (
                ("headings", 1.0, 0.15),
                ("crops", 1.0, 0.15),
                ("headings and crops", 0.3, 0.15),
                ("headings and crops", 1.0, 0.15),
                ("headings and crops", 1.0, 0.07),
            )
        },
        **{f"no instances, shrinkage {a}": partial(closed, shrinkage=a) for a in (0.07, 0.15, 0.3, 0.7)},
        **{f"differences + noise, {noise}": partial(closed, noise=noise) for noise in (0.3, 1.0)},
        **{f"differences, dropout {p}": partial(closed, dropout=p) for p in (0.1, 0.3)},
    }


def linear_rows() -> dict[str, Make]:
    """The second table, of the gradient learner."""
    return {
        "linear": linear,
        **{f"linear, features + noise, {noise}": partial(linear, noise=noise) for noise in (0.1, 0.3)},
        "linear, features, dropout 0.1": partial(linear, dropout=0.1),
        **{f"linear, headings, {w}": partial(linear, kind="headings", weight=w) for w in (0.3, 1.0)},
        "linear, crops, 0.3": partial(linear, kind="crops", weight=0.3),
    }
