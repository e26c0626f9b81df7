"""The command that renders: places to learn on, or a flight over a map."""

from pathlib import Path
from typing import Any

import click

from cvgl_ray.cli import options, printing
from cvgl_ray.errors import InputError

PLACES_ONLY = ("places", "test_places", "views", "image_size", "distractors")
FLIGHT_ONLY = ("photos", "quarters")


@click.command()
@click.option("--output", type=options.FOLDER, required=True, help="Folder of the world.")
@click.option("--places", default=120, show_default=True, type=click.IntRange(min=1), help="Training places.")
@click.option("--test-places", default=60, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--views", default=4, show_default=True, type=click.IntRange(min=1), help="Drone images per place."
)
@click.option("--image-size", default=256, show_default=True, type=click.IntRange(min=32), help="px")
@click.option(
    "--distractors",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Test places without queries.",
)
@click.option("--flight", is_flag=True, help="A map and a drone's flight over it instead of places.")
@click.option("--photos", default=60, show_default=True, type=click.IntRange(min=2), help="Of the flight.")
@click.option(
    "--quarters",
    default=3,
    show_default=True,
    type=click.IntRange(min=1, max=6),
    help="Side of the flight's map, in neighbourhoods of 400 m.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--processes", default=1, show_default=True, type=click.IntRange(min=1))
@click.pass_context
def synth(context: click.Context, output: Path, flight: bool, **given: Any) -> None:
    """Render a procedural world: places in University-1652's layout, or a map and a flight over it."""
    from cvgl_ray.synthetic import write_flight, write_world
    from cvgl_ray.synthetic.untrained import write_settings

    unused = PLACES_ONLY if flight else FLIGHT_ONLY
    for name in unused:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} was given {'with' if flight else 'without'} --flight, where it means nothing"
            )
    used = {name: value for name, value in given.items() if name not in unused}
    run = f"runs/{output.resolve().name}"
    if flight:
        write_flight(output, **used)
        paths = (
            "--map",
            f"{output}/map.tif",
            "--query",
            f"{output}/photos",
            "--truth",
            f"{output}/truth.csv",
        )
        click.echo(f"flight: {output}\nnext:   {printing.command('localize', *paths, '--output', run)}")
        return
    write_world(output, **used)
    config, root = str(write_settings(output)), f"dataset.root={output}"
    click.echo(f"world: {output}")
    click.echo(f"next:  {printing.command('train', '--config', config, '--set', root, '--output', run)}")
