"""The command that renders: places to learn on, a flight over a map, or streets under tiles."""

from pathlib import Path
from typing import Any

import click

from cvgl_ray.cli import options, printing
from cvgl_ray.errors import InputError

# Options that mean something only with one kind of world, and of which kinds.
ONLY = {
    "places": ("places", "streets"),
    "image_size": ("places", "streets"),
    "test_places": ("places",),
    "views": ("places",),
    "distractors": ("places",),
    "photos": ("flight",),
    "quarters": ("flight",),
    "turned": ("streets",),
    "field_of_view": ("streets",),
}
NARROWEST_ALIGNED = 26  # degrees: four of the 56 sectors that strips are aligned by


AT_LEAST_1 = click.IntRange(min=1)


@click.command(context_settings={"show_default": True})
@click.option("--output", type=options.FOLDER, required=True, help="Folder of the world.")
@click.option("--places", default=120, type=AT_LEAST_1, help="Training places, or places along streets.")
@click.option("--test-places", default=60, type=AT_LEAST_1, help="Test places.")
@click.option("--views", default=4, type=AT_LEAST_1, help="Drone images per place.")
@click.option("--image-size", default=256, type=click.IntRange(min=32), help="Px per side.")
@click.option(
    "--distractors", default=0, type=click.IntRange(min=0), help="More test places, without queries."
)
@click.option("--flight", is_flag=True, help="Render a map and a drone's flight over it instead.")
@click.option("--photos", default=60, type=click.IntRange(min=2), help="Photos of the flight.")
@click.option(
    "--quarters", default=3, type=click.IntRange(1, 6), help="Of 400 m, along each side of its map."
)
@click.option("--streets", is_flag=True, help="Render street panoramas and the tiles around them instead.")
@click.option("--turned", is_flag=True, help="Panoramas look to any heading, not to the north.")
@click.option("--field-of-view", default=360, type=click.IntRange(10, 360), help="Degrees of a panorama.")
@click.option("--seed", default=0, help="Another number renders another world.")
@click.option("--processes", default=1, type=AT_LEAST_1, help="Processes that render; threads with --flight.")
@click.pass_context
def synth(context: click.Context, output: Path, flight: bool, streets: bool, **given: Any) -> None:
    """Render a procedural world.

    Places in University-1652's layout, with --flight a flight over a map, or with --streets panoramas and the
    tiles around them.
    """
    from cvgl_ray.synthetic.street_views import write_streets
    from cvgl_ray.synthetic.survey import write_flight
    from cvgl_ray.synthetic.untrained import write_settings
    from cvgl_ray.synthetic.writer import write_world

    if flight and streets:
        raise InputError("--flight and --streets were both given: render one world at a time")
    kind = "flight" if flight else "streets" if streets else "places"
    unused = [name for name, kinds in ONLY.items() if kind not in kinds]
    for name in unused:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            where = f"with --{kind}" if kind != "places" else f"without --{ONLY[name][-1]}"
            raise InputError(f"{option} was given {where}, where it means nothing")
    used = {name: value for name, value in given.items() if name not in unused}
    run = f"runs/{output.resolve().name}"
    if streets:
        write_streets(output, **used)
        sets = ["--config", "experiments/street_panorama.toml", "--set", f"dataset.root={output}"]
        if used["field_of_view"] < 360:
            sets += ["--set", f"pretransform.query.field_of_view={used['field_of_view']}"]
        if used["field_of_view"] < NARROWEST_ALIGNED:
            sets += ["--set", "alignment.use=no"]
        click.echo(f"streets: {output}\nnext:    {printing.command('train', *sets, '--output', run)}")
        return
    if flight:
        write_flight(output, **used)
        sets = ["--map", f"{output}/map.tif", "--query", f"{output}/photos", "--truth", f"{output}/truth.csv"]
        click.echo(f"flight: {output}\nnext:   {printing.command('localize', *sets, '--output', run)}")
        return
    write_world(output, **used)
    config, root = str(write_settings(output)), f"dataset.root={output}"
    click.echo(f"world: {output}")
    click.echo(f"next:  {printing.command('train', '--config', config, '--set', root, '--output', run)}")
