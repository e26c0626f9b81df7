"""The command line: parse, call one stage, print its summary; `main` gives every end its exit code."""

import errno
import os
import signal
import sys

import click

from cvgl_ray import logs
from cvgl_ray.cli.localize import localize
from cvgl_ray.cli.runs import evaluate, extract, quickstart, train, tune
from cvgl_ray.cli.synth import synth
from cvgl_ray.cli.tools import compare, configuration
from cvgl_ray.errors import GaveUpError, InputError, root_cause

# What a disk or its owner refuses: a state of the machine, neither a bug nor bad input.
_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)


@click.group(context_settings={"max_content_width": 100})
@click.version_option(package_name="cvgl-ray")
@click.option("--verbose", is_flag=True, help="Log more, with level and time; may also follow the command.")
def cli(verbose: bool) -> None:
    """Cross-view geo-localization without ground truth: adapt a frozen model to two collections of images."""
    logs.set_up(True if verbose else None)


for command in (extract, train, tune, evaluate, localize, synth, quickstart, configuration, compare):
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit code 0 on success, 2 on bad input with one sentence, 1 otherwise.

    What else stops it is told in one sentence above its traceback. SIGTERM, which `ray job stop` sends, ends
    it as SIGINT does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("cvgl-ray: interrupted; start the same command again to go on", err=True)
        sys.exit(1)
    except Exception as error:
        cause = root_cause(error)  # a task's InputError is one too
        message = cause.format_message() if isinstance(cause, click.ClickException) else str(cause)
        if isinstance(cause, click.ClickException | InputError):
            click.echo(f"cvgl-ray: {' '.join(message.split())}", err=True)
            sys.exit(2)
        if isinstance(cause, GaveUpError):
            click.echo(
                f"cvgl-ray: {' '.join(message.split())}; the same command goes on where it was", err=True
            )
            sys.exit(1)
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
            where = f" {cause.filename}" if cause.filename else ""
            click.echo(
                f"cvgl-ray: cannot read or write{where} ({os.strerror(cause.errno)}); what was done is kept: "
                "make room or mend that, and start the same command again to go on",
                err=True,
            )
            sys.exit(1)
        reason = f"{type(cause).__name__}: {message}".strip().splitlines()[0]
        click.echo(f"cvgl-ray: stopped by {reason} (traceback below; the same command goes on)", err=True)
        raise
