"""A whole training against the paper's loop on the same features: 200 steps each, seconds and R@1.

python experiments/benchmarks/training.py [--quick] [--tables DRONE.parquet SATELLITE.parquet]

The paper's loop has the settings of experiments/thumbs_paper.toml, 200 rounds of a step on a random batch.
The product's gradient training takes its 200 steps in 20 rounds; the recommended one is a closed form.
"""

import statistics
from pathlib import Path

import click
import numpy as np
import torch
from side_by_side import Race, line, race
from worlds import place_of, two_tables

from cvgl_ray.config import Config, load_config
from cvgl_ray.em.adapters import ViewCentred, embed
from cvgl_ray.em.fit import fit
from cvgl_ray.evaluation.metrics import retrieval_metrics
from cvgl_ray.features.table import FeatureTable
from cvgl_ray.features.views import QUERY, REFERENCE

PAPER = Path(__file__).parents[1] / "thumbs_paper.toml"


def recall(adapter: ViewCentred, query: FeatureTable, reference: FeatureTable) -> float:
    """R@1 in percent, query view to reference view, by cosine."""
    rows = [embed(adapter, side.features, view) for side, view in ((query, QUERY), (reference, REFERENCE))]
    places = place_of(query), place_of(reference)
    return float(retrieval_metrics(torch.from_numpy(rows[0]), torch.from_numpy(rows[1]), *places)["R@1"])


def paper_config(steps: int, rows: int) -> Config:
    return load_config(PAPER, (f"mstep.rounds={steps}", f"estep.rows={rows}"))


@click.command()
@click.option("--tables", nargs=2, default=None, help="Parquet tables of drone and satellite features")
@click.option("--places", default=120, show_default=True, help="of the rendered world, without --tables")
@click.option("--steps", default=200, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="one seed each")
@click.option("--quick", is_flag=True, help="20 places, 20 steps")
def main(tables: tuple[str, str] | None, places: int, steps: int, repeats: int, quick: bool) -> None:
    """Print the ratios of seconds and both R@1."""
    places, steps, repeats = (20, 20, 1) if quick else (places, steps, repeats)
    query, reference = two_tables(tables, places)
    rows = min(250, len(reference))
    gradient = ("adapter.kind=linear", f"mstep.rounds={steps // 10}", f"mstep.batch_size={rows}")
    for name, settings in ((f"{steps} gradient steps", gradient), ("closed form", ())):
        result, recalls = compare(settings, paper_config(steps, rows), query, reference, repeats)
        figures = f"R@1 {np.mean(recalls[0]):.1f} against {np.mean(recalls[1]):.1f}"
        spread = f"paper's seeds +- {statistics.pstdev(recalls[1]):.1f}"
        print(line(f"training, {name}", result, 1.0, figures, spread, result.by_cpu()), flush=True)


def compare(
    settings: tuple[str, ...], paper: Config, query: FeatureTable, reference: FeatureTable, repeats: int
) -> tuple[Race, tuple[list[float], list[float]]]:
    """Seconds and R@1 of the product and of the paper's loop, one seed a repetition."""
    recalls: tuple[list[float], list[float]] = ([], [])

    def trained(config: Config, found: list[float]) -> None:
        run = config.run.model_copy(update={"seed": len(found)})
        learner, _ = fit(query.features, reference.features, config.model_copy(update={"run": run}).learning)
        found.append(recall(learner.adapter, query, reference))

    result = race(
        lambda: trained(load_config(None, settings), recalls[0]), lambda: trained(paper, recalls[1]), repeats
    )
    return result, recalls


if __name__ == "__main__":
    main()
