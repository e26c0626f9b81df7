"""Any number of pairs with the gap of real views: convex mixtures of the features of places that are known.

python experiments/benchmarks/mixtures.py TABLE --pairs 4000 [--dims 512] [--set estep.neighbourhood=0]

Each pair mixes three places by the same weights (Dirichlet 0.5) in both views, is projected at random to
`dims` dimensions, and gets noise of 0.3 of each dimension's spread, or as --noise says. TABLE: a
features.table of pairs, with place_id (the 250 places' features, say). Trains, and prints R@1 by cosine,
seconds and peak memory.
"""

import math
import resource
import time

import click
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvgl_ray.config import load_config
from cvgl_ray.em.adapters import embed
from cvgl_ray.em.fit import fit
from cvgl_ray.em.rounds import Round
from cvgl_ray.features.views import QUERY, REFERENCE, unit_rows
from cvgl_ray.search.topk import nearest

MIXED, CONCENTRATION, NOISE = 3, 0.5, 0.3
CHUNK = 10_000  # pairs


def paired(path: str) -> tuple[np.ndarray, np.ndarray]:
    """One feature of each place and view of a table, [P, D] float32 each, in the order of the places."""
    table = pq.read_table(path)
    views = []
    for view in sorted(set(table["view"].to_pylist())):  # drone, satellite
        of_view = table.filter(pc.equal(table["view"], view)).sort_by("place_id")
        rows = of_view["feature"].combine_chunks()
        views.append(rows.flatten().to_numpy().reshape(len(of_view), -1).astype(np.float32))
    return views[0], views[1]


def mixtures(
    places: tuple[np.ndarray, np.ndarray], pairs: int, dims: int, seed: int = 0, noise: float = NOISE
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and references [pairs, dims] float32; row i of both shows the same mixture."""
    rng = np.random.default_rng(seed)
    projection = rng.normal(size=(places[0].shape[1], dims)).astype(np.float32) / np.sqrt(dims)
    low = [view @ projection for view in places]
    mixed = np.stack([rng.choice(len(low[0]), MIXED, replace=False) for _ in range(pairs)])
    weights = rng.dirichlet([CONCENTRATION] * MIXED, pairs).astype(np.float32)
    made = []
    for view in low:
        rows = np.empty((pairs, dims), np.float32)
        for start in range(0, pairs, CHUNK):
            part = slice(start, start + CHUNK)
            rows[part] = np.einsum("nk,nkd->nd", weights[part], view[mixed[part]])
        spread = rows.std(axis=0)
        for start in range(0, pairs, CHUNK):
            some = rows[start : start + CHUNK]
            some += noise * spread * rng.standard_normal(some.shape, dtype=np.float32)
        made.append(rows)
    return made[0], made[1]


def recall_at_1(query: np.ndarray, reference: np.ndarray, asked: np.ndarray) -> float:
    """R@1 in percent, by cosine, of the queries asked among all references."""
    return 100 * float((nearest(query[asked], reference, 1).ids[:, 0] == asked).mean())


@click.command()
@click.argument("table")
@click.option("--pairs", default=4000, show_default=True)
@click.option("--dims", default=512, show_default=True)
@click.option("--noise", default=NOISE, show_default=True, help="in each dimension's spread")
@click.option("--seed", default=0, show_default=True)
@click.option("--set", "overrides", multiple=True, help="as for cvgl-ray train")
def main(table: str, pairs: int, dims: int, noise: float, seed: int, overrides: tuple[str, ...]) -> None:
    """Print R@1 of the frozen and of the adapted features, seconds and peak memory."""
    config = load_config(None, overrides)
    query, reference = mixtures(paired(table), pairs, dims, seed, noise)
    asked = np.sort(np.random.default_rng(1).choice(pairs, min(pairs, 10_000), replace=False))
    before = recall_at_1(unit_rows(query), unit_rows(reference), asked)
    query, reference = query.astype(np.float16), reference.astype(np.float16)
    started = time.perf_counter()

    def told(done: Round) -> None:
        print(f"round {done.number} after {time.perf_counter() - started:.0f} s", flush=True)

    learner, rounds = fit(query, reference, config.learning, told)
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    z_query, z_reference = (
        embed(learner.adapter, rows, view, device=learner.device)
        for rows, view in ((query, QUERY), (reference, REFERENCE))
    )
    after = recall_at_1(z_query, z_reference, asked)
    labelled = 100 * float((rounds[-1].labels.best_of_query[asked] == asked).mean())
    parts = {
        key: sum(done.scalars.get(key, 0.0) for done in rounds) for key in ("time/e_step_s", "time/m_step_s")
    }
    print(
        f"{pairs} pairs of {dims}: R@1 {before:.1f} frozen, {after:.1f} adapted, {labelled:.1f} of the last"
        f" E-step; fit {seconds:.1f} s"
        f" (E {parts['time/e_step_s']:.1f}, M {parts['time/m_step_s']:.1f}); peak {memory:.2f} GiB;"
        f" score {rounds[-1].scalars.get('labels/score', math.nan):.3f}"
    )


if __name__ == "__main__":
    main()
