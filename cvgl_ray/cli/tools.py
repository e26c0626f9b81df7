"""The commands that leave no folder: localize, config."""

import json
from pathlib import Path

import click

from cvgl_ray.cli import options
from cvgl_ray.config import read_tree
from cvgl_ray.reports.describe import as_table, as_toml


@click.command()
@click.option("--bundle", type=options.FOLDER, required=True, help="What `train` left.")
@click.option(
    "--gallery", required=True, help="Folder or URI of reference images; of a table's bundle, a table."
)
@click.option("--query", "queries", multiple=True, required=True, help="An image, or a table; repeatable.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="References per query.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.overrides
@options.address
@options.verbose
def localize(
    bundle: Path,
    gallery: str,
    queries: tuple[str, ...],
    top: int,
    as_json: bool,
    overrides: tuple[str, ...],
    address: str,
) -> None:
    """Find where images were taken: the most similar references of a gallery.

    Where the backbone's weights lie now is said by --set backbone.checkpoint=FILE.
    """
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
            click.echo(f"  {rank:2d}  {reference['similarity']:.3f}  {reference['image_id']}{where}")


@click.command("config")
@click.argument("sections", nargs=-1)
@click.option("--toml", is_flag=True, help="A file to start from: every key with its default.")
def configuration(sections: tuple[str, ...], toml: bool) -> None:
    """Print every key of the configuration, of SECTIONS alone where some are named."""
    click.echo((as_toml if toml else as_table)(sections))
