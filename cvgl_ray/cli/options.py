"""The options that several commands share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cvgl_ray import logs
from cvgl_ray.distributed.address import LOCAL, cluster_address

Command = TypeVar("Command", bound=Callable[..., Any])


def _cluster(_context: click.Context, _option: click.Parameter, address: str) -> str:
    """The cluster's address; one that is started here listens on the loopback alone.

    Ray reads the latter at its import.
    """
    address = cluster_address(address)
    # Once ray is imported, it would hold for Ray's processes and not for this one.
    if address == LOCAL and "ray" not in sys.modules:
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
    callback=_cluster,
    help="Ray cluster, HOST:PORT or local; default: the one of this machine, else a new one here.",
)
config_file = click.option(
    "--config", "config_path", type=click.Path(), default=None, help="A TOML file; see `cvgl-ray config`."
)
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Overrides a setting; repeatable."
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
