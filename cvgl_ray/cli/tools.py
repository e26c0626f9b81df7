"""The commands that leave nothing: config and compare."""

import click

from cvgl_ray.reports.describe import as_table, as_toml


@click.command("config")
@click.argument("sections", nargs=-1)
@click.option("--toml", is_flag=True, help="A file to start from: every key with its default.")
def configuration(sections: tuple[str, ...], toml: bool) -> None:
    """Print every key of the configuration, of SECTIONS alone where some are named."""
    click.echo((as_toml if toml else as_table)(sections))


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
def compare(first: str, second: str) -> None:
    """Test whether two runs differ: A and B are folders of `train` or `evaluate`, or their metrics.json.

    Both are judged on the same queries, one by one. The table has B less A with its 95 % interval (bootstrap)
    and p: of R@k by McNemar's exact test where every query is its own spot; else, and of other figures, by
    exchanging the two runs' results of whole spots at random. Of the galleries only the size is checked:
    whether they hold the same references is not known here.
    """
    from cvgl_ray.evaluation.query_table import compared, read_query_table
    from cvgl_ray.reports.comparison import comparison_table

    click.echo(comparison_table(compared(read_query_table(first), read_query_table(second))))
