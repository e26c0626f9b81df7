"""A sweep with ASHA against all its candidates run to their end: trials per hour, how good the choice is.

python experiments/benchmarks/tuning.py experiments/tune_thumbs.toml --set dataset.root=DIR \
    --set backbone.checkpoint=FILE --output DIR

DIR/asha and DIR/none are what `cvgl-ray tune` leaves, DIR/features serves both. Target: the trial that ASHA's
sweep chooses has, run to its end, R@1 within half a point of the best of all candidates.
"""

import json
from pathlib import Path

import click

from cvgl_ray.distributed.tune import sweep_stage
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.config import load_sweep

TARGET = 0.5  # percentage points


def trials_per_hour(journal: Path) -> float:
    """From the first report to the last end; the trials that run at a time are counted as they come."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    began = min(line["time"] - line.get("seconds", 0.0) for line in lines)
    ends = [line["time"] for line in lines if "ended" in line]
    return 3600 * len(ends) / (max(ends) - began)


def recalls(table: Path) -> tuple[list[str], dict[str, list[float]], str]:
    """Of a labels_table.md: the directions, R@1 of each by trial, and the trial that was chosen."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in table.read_text().splitlines()
        if line.startswith("|")
    ]
    head, body = rows[0], rows[2:]
    columns = [number for number, name in enumerate(head) if name.startswith("R@1 ")]
    found = {row[0]: [float(row[number]) for number in columns] for row in body}
    chosen = next(row[0] for row in body if row[1] == "yes")
    return [head[number].removeprefix("R@1 ") for number in columns], found, chosen


@click.command()
@click.argument("sweep", type=click.Path(exists=True, dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(sweep: str, overrides: tuple[str, ...], output: Path) -> None:
    """Run SWEEP with ASHA and without, and compare."""
    for scheduler in ("asha", "none"):
        settings = (*overrides, f"features.cache={output / 'features'}", f"tune.scheduler={scheduler}")
        sweep_stage(load_sweep(sweep, settings), output / scheduler)
        click.echo(f"{scheduler}: {trials_per_hour(output / scheduler / 'trials.jsonl'):.0f} trials per hour")
    _, _, chosen = recalls(output / "asha" / "labels_table.md")
    directions, found, _ = recalls(output / "none" / "labels_table.md")
    for number, direction in enumerate(directions):
        best, own = max(row[number] for row in found.values()), found[chosen][number]
        verdict = "met" if best - own <= TARGET else "MISSED"
        click.echo(
            f"{direction}: {chosen}, ASHA's choice, has R@1 {own:.1f}, the best candidate {best:.1f} "
            f"(target: within {TARGET}: {verdict})"
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"tuning: {error}") from error
