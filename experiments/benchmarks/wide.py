"""What a search of wide rows by a few numbers each costs, in seconds and in recall.

python experiments/benchmarks/wide.py TABLE --pairs 20000 --dims 2048

Mixtures as in mixtures.py; 32 candidates of a sample of queries, against the exact search's. "whole rows":
the same index without the projection. TABLE: see mixtures.py.
"""

import time
from unittest import mock

import click
import numpy as np
from mixtures import mixtures, paired

from cvgl_ray.features.views import unit_rows
from cvgl_ray.search import views
from cvgl_ray.search.approximate import NARROW, chosen, projection
from cvgl_ray.search.topk import nearest

MANY, CANDIDATES = 10**9, 32  # so many queries make "auto" take lists


def recall(right: np.ndarray, ids: np.ndarray, k: int) -> float:
    """The share of the k right ones that are among k found, over all rows [n, CANDIDATES]."""
    return float(np.mean([np.isin(a[:k], b[:k]).mean() for a, b in zip(right, ids, strict=True)]))


@click.command()
@click.argument("table")
@click.option("--pairs", default=20_000, show_default=True)
@click.option("--dims", default=2048, show_default=True)
@click.option("--asked", default=2000, show_default=True, help="queries")
def main(table: str, pairs: int, dims: int, asked: int) -> None:
    """Print a row per way to search: seconds with the index's building, recall@1, 10, 32."""
    query, reference = (unit_rows(rows - rows.mean(axis=0)) for rows in mixtures(paired(table), pairs, dims))
    query = query[np.random.default_rng(0).choice(pairs, min(pairs, asked), replace=False)]
    started = time.perf_counter()
    right = nearest(query, reference, CANDIDATES).ids
    print(f"| exact | {time.perf_counter() - started:.1f} | 1 | 1 | 1 |", flush=True)
    factory = chosen("auto", MANY, pairs, dims)
    for kind in ("Flat", factory):
        for name, fit in ((f"{NARROW} numbers", projection), ("whole rows", lambda rows: None)):
            started = time.perf_counter()
            with mock.patch.object(views, "projection", fit):
                ids = views.found_by_index([query], reference, None, CANDIDATES, kind).near.ids
            seconds = time.perf_counter() - started
            figures = " | ".join(f"{recall(right, ids, k):.3f}" for k in (1, 10, CANDIDATES))
            print(f"| {kind}, {name} | {seconds:.1f} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
