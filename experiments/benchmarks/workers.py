"""The rounds of one training worker against those of two, each of one thread, on one table of mixtures.

    python experiments/benchmarks/workers.py TABLE [--pairs 50000] [--dims 512] [--rounds 2] [--set K=V]…

TABLE: see mixtures.py. Without the judge, which rank 0 does alone. Driver, index and workers share this
machine, and what the index does alone counts too. Prints the seconds of each E-step, what share of half of
them two workers come to, and how many pseudo-labels differ.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import ray
from mixtures import mixtures, paired

from cvgl_ray.config import load_config
from cvgl_ray.distributed.rows import share
from cvgl_ray.distributed.train import fit_on_workers
from cvgl_ray.features.table import FeatureTable
from cvgl_ray.storage.checkpoints import last_state

ALONE = ("run.agreement=false",)


@click.command()
@click.argument("table")
@click.option("--pairs", default=50_000, show_default=True)
@click.option("--dims", default=512, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--set", "overrides", multiple=True, help="as for cvgl-ray train")
def main(table: str, pairs: int, dims: int, rounds: int, overrides: tuple[str, ...]) -> None:
    """Train by one worker, then by two."""
    views = [side.astype(np.float16) for side in mixtures(paired(table), pairs, dims)]
    tables = [
        FeatureTable([f"{view}/{row}" for row in range(pairs)], side) for view, side in enumerate(views)
    ]
    ray.init(address="local", log_to_driver=False)
    data = share(*tables)
    labels, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            config = load_config(
                None, (f"mstep.rounds={rounds}", f"run.workers={workers}", *ALONE, *overrides)
            )
            run = Path(folder) / f"of_{workers}"
            result = fit_on_workers(
                data, config, folder, run.name, run / "logs", staging=run / "staging", threads=1
            )
            state = last_state(run)
            assert state is not None
            labels.append(state["labels"])
            told = result.metrics_dataframe
            assert told is not None
            seconds.append(told["time/e_step_s"].to_numpy())
            print(f"{workers} worker(s): E-steps {', '.join(f'{s:.1f}' for s in seconds[-1])} s", flush=True)
    others = int((labels[0]["of_query"] != labels[1]["of_query"]).sum())
    gained = seconds[0].sum() / (2 * seconds[1].sum())
    print(f"{gained:.2f} of linear; {others} of {pairs} queries have another pseudo-label")


if __name__ == "__main__":
    main()
