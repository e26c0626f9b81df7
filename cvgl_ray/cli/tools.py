"""The commands that leave nothing: config and compare."""

import click

from cvgl_ray.reports.describe import as_table, as_toml


@click.command("config")
@click.argument("sections", nargs=-1)
@click.option("--toml", is_flag=True, help="As a file to start from: every key with its default.")
def configuration(sections: tuple[str, ...], toml: bool) -> None:
    """Print every key of the configuration.

    Of the named SECTIONS alone, where some are named.
    """
    click.echo((as_toml if toml else as_table)(sections))


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
def compare(first: str, second: str) -> None:
    """Test whether two runs differ.

    A and B are folders of `train` or `evaluate`, or their metrics.json; both are judged on the same queries,
    one by one. The table has B minus A with its 95 % interval (bootstrap) and p: for R@k by McNemar's exact
    test where no two queries show one spot; otherwise, and for all other figures, by exchanging the two runs'
    results of whole spots at random. Of the galleries only the sizes are compared: whether they hold the same
    references is not known here.
    """
    from cvgl_ray.evaluation.query_table import compared, read_query_table
    from cvgl_ray.reports.comparison import comparison_table

    click.echo(comparison_table(compared(read_query_table(first), read_query_table(second))))
