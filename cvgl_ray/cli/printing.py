"""What commands print: the table of figures, where things lie, and the command that comes next."""

import os
import shlex
from typing import TYPE_CHECKING, Any

import click

from cvgl_ray.config import Config, Dataset
from cvgl_ray.distributed.address import LOCAL

if TYPE_CHECKING:
    from cvgl_ray.localization.request import Answer


def report(metrics: dict[str, Any], folder: str) -> None:
    """The figures of metrics.json's tree, which lies in `folder`."""
    from cvgl_ray.reports.tables import markdown_table, score_line

    if metrics["adapted"]:
        click.echo(markdown_table(metrics))
    else:
        click.echo("the data set has no labels, so there is no recall to report")
    click.echo(score_line(metrics["selection"]))
    click.echo(f"metrics: {folder}/metrics.json")


def flight(answer: "Answer", folder: str) -> None:
    """What a localisation on a map found, and where its files lie."""
    from cvgl_ray.reports.flight_page import summarise

    counts = summarise(answer.rows)
    median = "" if counts["error_m"] is None else f", expected error {counts['error_m']:.1f} m in the median"
    click.echo(f"{counts['found']} of {counts['photos']} photos found{median}")
    lost = [row for row in answer.rows if not row.found]
    for row in lost[:5]:
        click.echo(f"  not found: {row.image_id}: {row.reason} (confidence {row.confidence or 0:.2f})")
    if len(lost) > 5:
        click.echo(f"  and {len(lost) - 5} more")
    if answer.metrics is not None:
        within = ", ".join(f"{share:.1f} % within {m} m" for m, share in answer.metrics["within"].items())
        middle = answer.metrics["median_m"]
        median = "infinite" if middle is None else f"{middle:.1f} m"
        click.echo(f"truth:   {within}; median {median} ({folder}/metrics.json)")
    click.echo(f"places:  {folder}/locations.csv, {folder}/locations.geojson")
    click.echo(f"bundle:  {folder}/bundle, for the next flight over this map")
    click.echo(f"logs:    tensorboard --logdir {shlex.quote(folder)}")
    click.echo(f"report:  {folder}/report.html")


def bundle(config: Config, output: str) -> None:
    """Where a run's bundle lies, and how to locate with it one of the run's own images."""
    folder = f"{output}/bundle"
    click.echo(f"bundle:  {folder}\nlogs:    tensorboard --logdir {shlex.quote(output)}")
    table = config.features.table
    gallery, query = (table, table) if table else _example(config.dataset, f"{output}/catalog.parquet")
    click.echo(f"next:    {command('localize', '--bundle', folder, '--gallery', gallery, '--query', query)}")


def command(*words: str) -> str:
    """A command line as it can be typed."""
    return shlex.join(["cvgl-ray", *words])


def again(name: str, config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> str:
    """Another command with the options that this one was given."""
    words = ["--config", config_path] if config_path else []
    for item in overrides:
        words += ["--set", item]
    joined = [] if address in ("", LOCAL) else ["--address", address]
    return command(name, *words, "--output", output, *joined)


def _example(dataset: Dataset, catalog: str) -> tuple[str, str]:
    """A gallery's folder and a query's file in a run's catalog: test images where there are any."""
    from cvgl_ray.catalog.table import Catalog
    from cvgl_ray.evaluation.protocols import directions

    rows = Catalog.read(catalog)
    way = directions(rows, dataset.query_view, dataset.reference_view)[0]
    own = [uri for uri, name in zip(way.gallery.uris, way.gallery.image_ids, strict=True) if name[0] != "."]
    return os.path.commonpath([os.path.dirname(uri) for uri in own]), way.queries.uris[0]
