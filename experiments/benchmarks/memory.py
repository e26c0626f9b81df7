"""Peak memory of the exact E-step and of the evaluation at 1, 10 and 100 times the rows, against a bound.

python experiments/benchmarks/memory.py [--quick]

Each size runs in a process of its own; what counts is the growth of its peak over what it held with the rows
made. Bound: 128 MiB of blocks and torch's own, and 512 bytes a row for the E-step's answers; the evaluation's
budget (evaluation.search.MEMORY_BYTES), the same 128 MiB and 128 bytes a row.
"""

import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click
import numpy as np
import torch

from cvgl_ray.em.matching import pseudo_labels
from cvgl_ray.evaluation.metrics import retrieval_metrics
from cvgl_ray.search.ranks import MEMORY_BYTES

FIXED = 128 * 2**20
PER_ROW = {"E-step": 512, "evaluation": 128}  # bytes, of both views' rows


def peak() -> int:
    """Of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def grown(what: str, rows: int, dimension: int) -> int:
    """How much the peak rises above what two views of `rows` rows hold, in bytes."""
    sides = [np.random.default_rng(view).random((rows, dimension), dtype=np.float32) for view in (0, 1)]
    places = np.arange(rows).astype(str)
    tensors = [torch.from_numpy(side) for side in sides]
    work: dict[str, Callable[[], object]] = {
        "E-step": lambda: pseudo_labels(sides[0], sides[1]),
        "evaluation": lambda: retrieval_metrics(tensors[0], tensors[1], places, places),
    }
    before = peak()
    work[what]()
    return peak() - before


@click.command()
@click.option("--rows", default=500, show_default=True, help="of each view, at first")
@click.option("--dimension", default=64, show_default=True)
@click.option("--quick", is_flag=True, help="up to 10,000 rows")
def main(rows: int, dimension: int, quick: bool) -> None:
    """Print the growth at each size and whether it keeps the bound."""
    rows = 100 if quick else rows
    for what, per_row in PER_ROW.items():
        figures, held = [], True
        for count in (rows, 10 * rows, 100 * rows):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process each: a peak never falls
                growth = pool.submit(grown, what, count, dimension).result()
            bound = FIXED + 2 * count * per_row + (MEMORY_BYTES if what == "evaluation" else 0)
            held &= growth <= bound
            whole = 4 * count * count / 2**20
            figures.append(
                f"{count} rows {growth / 2**20:.0f} of {bound / 2**20:.0f} MiB (matrix {whole:.0f})"
            )
        print(f"peak memory, {what}: {'held' if held else 'BROKEN'}; {'; '.join(figures)}")


if __name__ == "__main__":
    main()
