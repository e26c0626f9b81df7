"""The options that several commands share."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cvgl_ray import logs

Command = TypeVar("Command", bound=Callable[..., Any])


def _stay_on_the_loopback(_context: click.Context, _option: click.Parameter, address: str) -> str:
    """Have a cluster that is started here listen on the loopback alone; Ray reads this at its import."""
    folder = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    running = Path(folder, "ray", "ray_current_cluster")  # what `ray start` leaves
    alone = not address and "RAY_ADDRESS" not in os.environ and not running.exists()
    if alone and "ray" not in sys.modules:  # else it would hold for Ray's processes and not for this one
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 1 is Linux's default
    return address


class _Folder(click.Path):
    """A folder of this machine: a URI would pass for a path with a strange name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value!r} is a URI, and this takes a folder of this machine", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Folder(path_type=Path)

address = click.option(
    "--address",
    default="",
    callback=_stay_on_the_loopback,
    help="A Ray cluster; default: join or start one here.",
)
config_file = click.option(
    "--config", "config_path", type=click.Path(), default=None, help="A TOML file; see `cvgl-ray config`."
)
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Overrides the file; repeatable."
)
output = click.option(
    "--output",
    type=str,
    required=True,
    callback=lambda _context, _option, value: value.rstrip("/") or value,
    help="Folder of the run, or a URI such as s3://bucket/run.",
)
verbose = click.option(
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=lambda _context, _option, asked: logs.set_up(True) if asked else None,
    help="Log more, with level and time.",
)


def configured(command: Command) -> Command:
    """The options of every command that runs on a configuration."""
    for option in (verbose, address, output, overrides, config_file):
        command = option(command)
    return command
