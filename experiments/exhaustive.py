"""Every candidate of a sweep to its last round, in one process pool: what its scheduler could have found.

    python experiments/exhaustive.py experiments/tune_thumbs.toml --set dataset.root=DIR \
        --set backbone.checkpoint=FILE --output DIR

DIR/features holds the features of all candidates, as `cvgl-ray extract` leaves them. Prints the candidates by
falling score of their last round, with R@1 of the round that is kept.
"""

import json
import os
from pathlib import Path
from typing import Any

import click
from ablation import run_all

from cvgl_ray.errors import InputError
from cvgl_ray.tuning.candidates import candidates
from cvgl_ray.tuning.config import load_sweep


@click.command()
@click.argument("sweep", type=click.Path(exists=True, dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
@click.option("--output", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(min=1))
def main(sweep: str, overrides: tuple[str, ...], output: Path, processes: int) -> None:
    """Run all candidates of SWEEP on the features in OUTPUT and print their table."""
    found = {candidate.name: candidate for candidate in candidates(load_sweep(sweep, overrides))}
    jobs = [(name, candidate.config) for name, candidate in found.items()]
    lines = sorted(run_all(jobs, 1.0, output / "features", processes), key=lambda line: -_score(line))
    click.echo("| trial | score | R@1 query->reference | R@1 reference->query | seconds | values |")
    click.echo("| --- | --: | --: | --: | --: | --- |")
    for line in lines:
        figures = [f"{figure:.1f}" for figure in (*line["R@1"], line["seconds"])]
        cells = (line["name"], f"{_score(line):.3f}", *figures, json.dumps(found[line["name"]].values))
        click.echo(f"| {' | '.join(cells)} |")


def _score(line: dict[str, Any]) -> float:
    return float(line["scores"]["score"])


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"exhaustive: {error}") from error
