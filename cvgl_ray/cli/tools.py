"""The command that leaves nothing: config."""

import click

from cvgl_ray.reports.describe import as_table, as_toml


@click.command("config")
@click.argument("sections", nargs=-1)
@click.option("--toml", is_flag=True, help="A file to start from: every key with its default.")
def configuration(sections: tuple[str, ...], toml: bool) -> None:
    """Print every key of the configuration, of SECTIONS alone where some are named."""
    click.echo((as_toml if toml else as_table)(sections))
