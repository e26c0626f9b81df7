"""What the label-free score says at several sizes, and of features that tell nothing.

python experiments/benchmarks/label_free.py [--quick] [--pairs 500 --pairs 65536] [--dense 4000] [--seeds 200]

Pairs: the features of a place, seen twice with noise whose strength differs from image to image (log-normal,
`--spread`), set so that R@1 of the frozen features is 50 at each size. The score must not depend on the size.
Random: two views that have nothing to do with each other, at several sizes and dimensions. The score must
stay near 0 whatever the seed.
"""

import time

import click
import numpy as np

from cvgl_ray.config import load_config
from cvgl_ray.em.fit import fit
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.topk import nearest

SAMPLE = 2000  # queries by which R@1 is measured


def two_views(pairs: int, noise: float, spread: float, dimension: int) -> list[np.ndarray]:
    """Two views [pairs, dimension] of the same places, row by row; the same places at any noise."""
    rng = np.random.default_rng((pairs, dimension))
    places = rng.standard_normal((pairs, dimension), dtype=np.float32)
    strength = noise * np.exp(spread * rng.standard_normal((pairs, 1), dtype=np.float32))
    return [places + strength * rng.standard_normal(places.shape, dtype=np.float32) for _ in range(2)]


def recall(query: np.ndarray, reference: np.ndarray) -> float:
    """R@1 in percent by cosine, of SAMPLE queries in all references."""
    rows = np.linspace(0, len(query) - 1, min(SAMPLE, len(query))).astype(int)
    best = nearest(unit_rows(query[rows]), unit_rows(reference), 1).best()
    return 100 * float((best == rows).mean())


def noise_for(pairs: int, spread: float, dimension: int, wanted: float = 50.0) -> float:
    """The noise at which R@1 is as wanted, by bisection."""
    low, high = 0.0, 8.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if recall(*two_views(pairs, middle, spread, dimension)) > wanted else (low, middle)
        )
    return low


def at_size(pairs: int, spread: float, dimension: int, dense: int) -> str:
    """A row of the first table."""
    noise = noise_for(pairs, spread, dimension)
    query, reference = (side.astype(np.float16) for side in two_views(pairs, noise, spread, dimension))
    config = load_config(None, () if pairs <= dense else ("estep.neighbourhood=0",))
    started = time.perf_counter()
    _, rounds = fit(query, reference, config.learning)
    seconds, scores = time.perf_counter() - started, rounds[-1].scalars
    figures = [scores[f"labels/{key}"] for key in ("score", "score_low", "score_high", "agreement", "mutual")]
    r1 = recall(query.astype(np.float32), reference.astype(np.float32))
    return f"| {pairs} | {r1:.1f} | " + " | ".join(f"{x:.3f}" for x in figures) + f" | {seconds:.0f} |"


def of_nothing(queries: int, references: int, dimension: int, seeds: int) -> str:
    """A row of the second table."""
    config, found = load_config(None), []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        query, reference = (
            rng.standard_normal((n, dimension), dtype=np.float32) for n in (queries, references)
        )
        learner, _ = fit(query, reference, config.learning)
        found.append(learner.return_to_best()["score"])
    mean, high = np.mean(found), np.max(found)
    return f"| {queries} x {references} | {dimension} | {seeds} | {mean:.3f} | {high:.3f} |"


@click.command()
@click.option("--pairs", multiple=True, type=int, default=(500, 1000, 4000, 8000, 16_000, 32_000, 65_536))
@click.option("--spread", default=0.5, show_default=True, help="of the noise's logarithm, over images")
@click.option("--dimension", default=128, show_default=True)
@click.option("--dense", default=16_384, show_default=True, help="pairs up to which neighbours take part")
@click.option("--seeds", default=200, show_default=True, help="of random features; 0: none")
@click.option("--quick", is_flag=True, help="two sizes, 5 seeds")
def main(pairs: tuple[int, ...], spread: float, dimension: int, dense: int, seeds: int, quick: bool) -> None:
    """Print two tables."""
    pairs, seeds = ((100, 4200), 3) if quick else (pairs, seeds)
    print("| pairs | R@1, frozen | score | low | high | agreement | mutual | seconds |\n|" + " ---: |" * 8)
    for count in pairs:
        print(at_size(count, spread, dimension, dense), flush=True)
    if seeds:
        print("\n| random features | dimension | seeds | mean score | highest |\n|" + " ---: |" * 5)
        for shape in (
            (20, 20, 64),
            (20, 20, 4096),
            (20, 60, 512),
            (60, 20, 512),
            (50, 50, 512),
            (99, 99, 64),
        ):
            print(of_nothing(*shape, seeds), flush=True)


if __name__ == "__main__":
    main()
