"""Evaluation at University-1652's size against one query at a time in NumPy.

python experiments/benchmarks/evaluation.py [--quick] [--peer-queries 300]

The peer does what published evaluations do: scores of one query, a full sort, membership tests over the
whole gallery, average precision by a loop. It runs on a sample of the queries; its time is scaled to all.
"""

import os
from dataclasses import fields

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a product with one row is slower on several threads

import click
import numpy as np
import torch
from side_by_side import Race, line, race

from cvgl_ray.evaluation.metrics import retrieval_metrics

# queries, gallery, images of a place among the queries and in the gallery (University-1652's test split)
DIRECTIONS = {"drone->satellite": (37_855, 951, 54, 1), "satellite->drone": (701, 51_355, 1, 54)}


def embeddings(count: int, places: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows near their place's own direction."""
    number = np.unique(places, return_inverse=True)[1]
    rows = np.random.default_rng(1).standard_normal((number.max() + 1, dimension), dtype=np.float32)[number]
    rows += 2 * rng.standard_normal((count, dimension), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def one_at_a_time(
    query: np.ndarray, gallery: np.ndarray, places: np.ndarray, gallery_places: np.ndarray
) -> dict[str, float]:
    """R@1, R@5, R@10 and AP in percent by the trapezoid rule; places are integers, -1 for junk."""
    hits, total = np.zeros(len(gallery)), 0.0
    for row, place in zip(query, places, strict=True):
        order = np.argsort(gallery @ row)[::-1]
        junk, relevant = np.flatnonzero(gallery_places == -1), np.flatnonzero(gallery_places == place)
        order = order[np.isin(order, junk, invert=True)]
        found = np.flatnonzero(np.isin(order, relevant))
        hits[found[0] :] += 1
        for i, rank in enumerate(found):
            before = i / rank if rank else 1.0
            total += (before + (i + 1) / (rank + 1)) / 2 / len(found)
    recalls = {f"R@{k}": 100 * hits[k - 1] / len(query) for k in (1, 5, 10)}
    return {**recalls, "AP": 100 * total / len(query)}


@click.command()
@click.option("--dimension", default=512, show_default=True)
@click.option("--peer-queries", default=300, show_default=True, help="of each direction, for the peer")
@click.option("--repeats", default=5, show_default=True)
@click.option("--quick", is_flag=True, help="a tenth of the images")
def main(dimension: int, peer_queries: int, repeats: int, quick: bool) -> None:
    """Print the ratio of both directions together and of each."""
    shrink = 10 if quick else 1
    raced = {}
    for name, (queries, references, per_query, per_reference) in DIRECTIONS.items():
        raced[name] = _one_direction(
            queries // shrink,
            references // shrink,
            per_query,
            per_reference,
            dimension,
            peer_queries,
            repeats,
        )
        print(line(f"  {name}", raced[name], 50, raced[name].by_cpu()))
    both = Race(
        *(
            [
                sum(turn)
                for turn in zip(*(getattr(result, field.name) for result in raced.values()), strict=True)
            ]
            for field in fields(Race)
        )
    )
    print(
        line(
            f"evaluation, {dimension} dimensions, both directions", both, 50, both.by_cpu(), "peer scaled up"
        )
    )


def _one_direction(
    queries: int,
    references: int,
    per_query: int,
    per_reference: int,
    dimension: int,
    sample: int,
    repeats: int,
) -> Race:
    """Time both on one direction; the peer's seconds are scaled to all queries."""
    rng = np.random.default_rng(0)
    places = np.array([f"{i // per_query:04d}" for i in range(queries)])
    gallery_places = np.array([f"{i // per_reference:04d}" for i in range(references)])
    names = np.concatenate([places, gallery_places])
    rows = embeddings(len(names), names, dimension, rng)
    query, gallery = rows[:queries].copy(), rows[queries:].copy()
    chosen = np.sort(rng.permutation(queries)[:sample])
    tensors = torch.from_numpy(query), torch.from_numpy(gallery)
    subset = query[chosen], gallery, places[chosen].astype(int), gallery_places.astype(int)

    expected = one_at_a_time(*subset)
    found = retrieval_metrics(tensors[0][chosen], tensors[1], places[chosen], gallery_places)
    for key, value in expected.items():
        assert abs(found[key] - value) < 0.01, (key, found[key], value)
    result = race(
        lambda: retrieval_metrics(*tensors, places, gallery_places), lambda: one_at_a_time(*subset), repeats
    )
    scale = queries / len(chosen)
    peer = ([scale * each for each in side] for side in (result.peer_s, result.peer_cpu_s))
    return Race(result.product_s, next(peer), result.product_cpu_s, next(peer))


if __name__ == "__main__":
    main()
