"""An approximate index over a million references against exact search.

python experiments/benchmarks/index.py [--quick] [--tables DRONE.parquet SATELLITE.parquet]

A reference is a feature of a satellite image, centred, projected at random to a few dimensions and given
noise; the copies of the set share a part of their projections, as regions share their look. Its query is the
drone image's feature under the same projection. Exact search is the faster of one blocked torch product with
top-k and faiss's flat index. Many queries at once (search/approximate.py) are another matter: mixtures.py.
"""

import statistics
import time
from collections.abc import Callable

import click
import faiss
import numpy as np
import torch
from side_by_side import Race, line, race
from worlds import place_of, two_tables

from cvgl_ray.features.table import FeatureTable
from cvgl_ray.features.views import unit_rows
from cvgl_ray.search.approximate import build_index, search
from cvgl_ray.search.topk import top_k

K = 10
OWN = 0.5  # of a copy's projection, relative to what all share


def projected_copies(
    drone: FeatureTable, satellite: FeatureTable, count: int, queries: int, dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    """References [count, dimension] and queries [queries, dimension], unit rows."""
    rng = np.random.default_rng(0)
    sides = [unit_rows(table.features) for table in (satellite, drone)]
    sides = [unit_rows(side - side.mean(axis=0)) for side in sides]
    first = {place: row for row, place in reversed(list(enumerate(place_of(drone))))}
    partner = np.array([first[place] for place in place_of(satellite)])
    shared = rng.standard_normal((satellite.dimension, dimension), dtype=np.float32)
    references = np.empty((count, dimension), dtype=np.float32)
    asked = []
    copies = -(-count // len(satellite))
    for copy in range(copies):
        projection = shared + OWN * rng.standard_normal(shared.shape, dtype=np.float32)
        rows = unit_rows(sides[0] @ projection)
        rows = unit_rows(rows + 0.5 / dimension**0.5 * rng.standard_normal(rows.shape, dtype=np.float32))
        part = references[copy * len(rows) : (copy + 1) * len(rows)]
        part[:] = rows[: len(part)]
        if copy % max(1, copies * len(partner) // queries) == 0 or copies * len(partner) < queries:
            asked.append(unit_rows(sides[1][partner] @ projection))
    return references, np.concatenate(asked)[:queries]


@click.command()
@click.option("--tables", nargs=2, default=None, help="Parquet tables of drone and satellite features")
@click.option("--references", "count", default=1_000_000, show_default=True)
@click.option("--queries", default=500, show_default=True)
@click.option("--dimension", default=64, show_default=True)
@click.option("--index", "kind", default="IVF2048,Flat", show_default=True, help="as estep.index")
@click.option("--parameters", multiple=True, default=("nprobe=16", "nprobe=32", "nprobe=40", "nprobe=48"))
@click.option("--repeats", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="50,000 references of a world of 30 places")
def main(
    tables: tuple[str, str] | None,
    count: int,
    queries: int,
    dimension: int,
    kind: str,
    parameters: tuple[str, ...],
    repeats: int,
    quick: bool,
) -> None:
    """Print recall@10 and the ratio of speeds at each search parameter."""
    if quick:
        count, kind = 50_000, "IVF256,Flat"
    references, query = projected_copies(*two_tables(tables, 30), count, queries, dimension)
    started = time.perf_counter()
    index = build_index(references, kind)
    build_s = time.perf_counter() - started
    sides = torch.from_numpy(query), torch.from_numpy(references)
    flat = build_index(references)
    exact = min((lambda: top_k(*sides, K), lambda: search(flat, query, K)), key=_seconds)
    truth = top_k(*sides, K)[0].numpy()
    for parameter in parameters:
        faiss.ParameterSpace().set_index_parameters(index, parameter)  # type: ignore[arg-type]
        found = search(index, query, K)[1]
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(truth, found, strict=True)])
        result: Race = race(lambda: search(index, query, K), exact, repeats)
        each = f"{1e6 * statistics.median(result.product_s) / len(query):.0f} us a query"
        name = f"{kind};{parameter} over {count} x {dimension}, recall@10 {recall:.3f}"
        print(line(name, result, 20, result.by_cpu(), each, f"built in {build_s:.0f} s"), flush=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
