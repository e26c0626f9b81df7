"""The command that localises: photos on a map, or single images among a gallery's references."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cvgl_ray.cli import options, printing
from cvgl_ray.config import read_tree
from cvgl_ray.errors import InputError

OF_MAP = ("output", "config_path", "no_adapt", "truth", "cache", "crs", "write", "every")
OF_GALLERY = ("top", "as_json")
SEVERAL = ("--map", "--query")


class _Several(click.Command):
    """Lets `--map` and `--query` take several values, as a shell's `*.jpg` gives them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_repeated(args)))


def _repeated(args: list[str]) -> Iterator[str]:
    """The arguments with the option named before each of its values."""
    option = ""
    for number, word in enumerate(args):
        if word.startswith("--"):
            option = word if word in SEVERAL else ""
        elif option and args[number - 1] != option:
            yield option
        yield word


@click.command(cls=_Several)
@click.option(
    "--map", "maps", multiple=True, help="GeoTIFF, folder of tiles, images with corners; takes several."
)
@click.option(
    "--query", "queries", multiple=True, required=True, help="Photos, videos or folders; takes several."
)
@click.option("--output", type=str, default=None, help="Needed with --map: folder of the run, or a URI.")
@click.option("--bundle", type=options.FOLDER, help="What `train` left, or with --map an earlier flight.")
@options.config_file
@options.overrides
@click.option("--no-adapt", is_flag=True, help="With --map: use the frozen model, not adapted to the flight.")
@click.option(
    "--truth", default="", help="With --map: CSV of true places, or exif; it judges the answer alone."
)
@click.option("--cache", default="", help="With --map: folder that keeps the cells; default: OUTPUT/cells.")
@click.option("--crs", default="", help="With --map: CRS of files that name none, such as EPSG:32632.")
@click.option(
    "--write", multiple=True, help="With --map: located photos as world, geotiff or gcp; repeatable."
)
@click.option(
    "--every",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="With --map: seconds between two frames of a video (needs the extra `video`).",
)
@click.option("--gallery", help="Folder or URI of reference images, or a table for a table's bundle.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="References per query.")
@click.option("--json", "as_json", is_flag=True, help="With --gallery: print JSON instead of a table.")
@options.address
@options.verbose
@click.pass_context
def localize(context: click.Context, maps: tuple[str, ...], gallery: str | None, **given: Any) -> None:
    """Find where photos were taken.

    With --map: each photo's coordinates, heading and ground width on a map, into OUTPUT/locations.csv,
    .geojson and report.html. With --gallery and a bundle of `train`: the most similar references.
    """
    if bool(maps) == bool(gallery):
        raise InputError(
            "localize needs --map, to place photos on a map, or --gallery, to find similar references;"
            f" found {'both' if maps else 'neither'}"
        )
    unused, other = (OF_GALLERY, "--gallery") if maps else (OF_MAP, "--map")
    for name in unused:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = {"config_path": "--config", "as_json": "--json"}.get(name, f"--{name.replace('_', '-')}")
            raise InputError(f"{option} means something with {other} alone, which was not given")
    kept = {name: value for name, value in given.items() if name not in unused}
    if maps:
        _on_map(maps, **kept)
    else:
        assert gallery is not None
        _among(gallery, **kept)


def _on_map(
    maps: tuple[str, ...],
    queries: tuple[str, ...],
    output: str | None,
    bundle: Path | None,
    config_path: str | None,
    overrides: tuple[str, ...],
    no_adapt: bool,
    truth: str,
    cache: str,
    crs: str,
    write: tuple[str, ...],
    every: float,
    address: str,
) -> None:
    if not output:
        raise InputError("--output is missing: give a folder for locations.csv and report.html")
    if not math.isfinite(every):
        raise InputError(f"--every is {every}: give a finite number of seconds")
    read_tree(config_path, overrides)
    from cvgl_ray.localization.request import Request
    from cvgl_ray.localization.run import frozen, load_map_config
    from cvgl_ray.map_stages import localize_map_stage

    config = load_map_config(config_path, overrides, bundle)
    output = output.rstrip("/") or output
    request = Request(maps, queries, crs, bundle, cache, truth, write, every)
    answer = localize_map_stage(frozen(config) if no_adapt else config, request, output, address)
    printing.flight(answer, output)


def _among(
    gallery: str,
    queries: tuple[str, ...],
    bundle: Path | None,
    overrides: tuple[str, ...],
    top: int,
    as_json: bool,
    address: str,
) -> None:
    if bundle is None:
        raise InputError("--bundle is missing: give DIR/bundle that `cvgl-ray train` left")
    read_tree(None, overrides)
    from cvgl_ray.distributed.localize import localize as locate

    found = locate(bundle, gallery, queries, top, overrides=overrides, address=address)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for query in found:
        click.echo(query["query"])
        for rank, reference in enumerate(query["references"], start=1):
            where = ""
            if reference["latitude"] is not None:
                where = f"  {reference['latitude']:.6f}, {reference['longitude']:.6f}"
            pose = ""
            if "pose" in reference:
                heading, sure = reference["pose"]["heading_deg"], reference["confidence"]
                pose = f"  heading {heading:3.0f}, confidence {sure:.2f}"
            click.echo(f"  {rank:2d}  {reference['similarity']:.3f}  {reference['image_id']}{where}{pose}")
