"""The command line: parse, call one stage, print its summary."""

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cvgl_ray.config import load_config
from cvgl_ray.distributed.address import LOCAL, cluster_address
from cvgl_ray.errors import GaveUpError, InputError, root_cause
from cvgl_ray.tuning.config import load_sweep

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

# The stages are imported inside the commands, after the configuration is read: `--help`, a mistyped option
# and an unknown key need not wait for ray and torch.


def _cluster(_context: click.Context, _option: click.Parameter, address: str) -> str:
    """The cluster's address; one that is started here listens on the loopback alone.

    Ray reads the latter at its import.
    """
    address = cluster_address(address)
    if (
        address == LOCAL and "ray" not in sys.modules
    ):  # else it would hold for Ray's processes and not for this
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # 1 is Linux's default
    return address


_address = click.option(
    "--address",
    default="",
    callback=_cluster,
    help="A Ray cluster; default: join or start one here.",
)


class _Folder(click.Path):
    """A folder of this machine: a URI would pass for a path with a strange name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value!r} is a URI, and this takes a folder of this machine", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Folder(path_type=Path)


def _configured(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all configured commands share."""
    for option in (
        _address,
        click.option(
            "--output",
            type=str,
            required=True,
            callback=lambda _context, _option, value: value.rstrip("/") or value,
            help="Folder of the run, or a URI such as s3://bucket/run.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Overrides the file; repeatable.",
        ),
        click.option("--config", "config_path", type=click.Path(), default=None, help="A TOML file."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"max_content_width": 100})
@click.version_option(package_name="cvgl-ray")
def cli() -> None:
    """Cross-view geo-localization without ground truth: adapt a frozen model to two heaps of images."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("cvgl_ray").setLevel(logging.INFO)


@cli.command()
@_configured
def extract(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Extract the frozen features of a data set into OUTPUT/features."""
    config = load_config(config_path, overrides)
    from cvgl_ray.stages import extract_stage

    found = extract_stage(config, output, address).extraction
    click.echo(
        f"features: {found.extracted} extracted, {found.reused} reused, {len(found.rejected)} rejected"
    )
    for image in found.rejected[:5]:
        click.echo(f"  rejected {image['uri']}: {image['reason']}")
    click.echo(f"next: cvgl-ray train with the same options; features lie in {output}/features")


@cli.command()
@_configured
def train(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Adapt to the training images, leave OUTPUT/bundle, evaluate where labels exist."""
    config = load_config(config_path, overrides)
    from cvgl_ray.stages import train_stage

    _print_report(train_stage(config, output, address), output)
    _print_bundle(output)


@cli.command()
@_configured
def tune(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Try the configurations that [tune] of the file describes, leave the best one's bundle."""
    sweep = load_sweep(config_path, overrides)
    if "://" in output:
        raise InputError(f"--output {output!r} is a URI, and a sweep takes a folder that all nodes see")
    from cvgl_ray.distributed.tune import sweep_stage

    folder = Path(output)
    report = sweep_stage(sweep, folder, address)
    click.echo((folder / "trials.md").read_text())
    _print_report(report, output)
    if (folder / "labels_table.md").exists():
        click.echo(f"labels:  {folder / 'labels_table.md'}, which the choice has not seen")
    click.echo(f"trials:  {folder / 'trials.csv'}, {folder / 'trials.png'}")
    _print_bundle(output)


@cli.command()
@_configured
@click.option("--bundle", type=FOLDER, default=None, help="Default: OUTPUT/bundle.")
def evaluate(
    config_path: str | None, overrides: tuple[str, ...], output: str, address: str, bundle: Path | None
) -> None:
    """Evaluate a bundle on the data set's test split, beside the frozen features."""
    config = load_config(config_path, overrides)
    from cvgl_ray.stages import evaluate_stage

    _print_report(evaluate_stage(config, bundle, output, address), output)
    click.echo(f"logs:    tensorboard --logdir {output}")


@cli.command()
@click.option("--bundle", type=FOLDER, required=True, help="What `train` left.")
@click.option("--gallery", required=True, help="Folder or URI of reference images.")
@click.option("--query", "queries", type=click.Path(path_type=Path), multiple=True, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="References a query.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@_address
def localize(
    bundle: Path, gallery: str, queries: tuple[Path, ...], top: int, as_json: bool, address: str
) -> None:
    """Find where images were taken: the most similar references of a gallery."""
    from cvgl_ray.distributed.localize import localize as locate

    found = locate(bundle, gallery, list(queries), top, bundle.parent / "features", address)
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


@cli.command()
@click.option("--output", type=FOLDER, required=True, help="Folder of the world.")
@click.option("--places", default=120, show_default=True, type=click.IntRange(min=1), help="Training places.")
@click.option("--test-places", default=60, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--views", default=4, show_default=True, type=click.IntRange(min=1), help="Drone images a place."
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
def synth(context: click.Context, output: Path, flight: bool, **options: Any) -> None:
    """Render a procedural world: places in University-1652's layout, or a map and a flight over it."""
    from cvgl_ray.synthetic import write_flight, write_world

    places_only = ("places", "test_places", "views", "image_size", "distractors")
    unused = places_only if flight else ("photos", "quarters")
    for name in unused:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} was given {'with' if flight else 'without'} --flight, where it means nothing"
            )
    used = {name: value for name, value in options.items() if name not in unused}
    if flight:
        write_flight(output, **used)
        click.echo(
            f"flight: {output}\nnext: cvgl-ray localize --map {output}/map.tif --query {output}/photos"
            f" --truth {output}/truth.csv --output DIR"
        )
        return
    write_world(output, **used)
    click.echo(f"world: {output}\nnext: cvgl-ray train --set dataset.root={output} --output DIR")


@cli.command()
@click.option("--output", type=FOLDER, default="runs/quickstart", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the world.")
@_address
def quickstart(output: Path, seed: int, address: str) -> None:
    """Render a small world, adapt to it without labels, evaluate on unseen places; no downloads."""
    from cvgl_ray.quickstart import quickstart as run

    _print_report(run(output, seed, address), str(output))
    _print_bundle(str(output))


def _print_report(report: dict[str, Any], output: str) -> None:
    from cvgl_ray.reports.tables import markdown_table

    if report["adapted"]:
        click.echo(markdown_table(report))
    else:
        click.echo("the data set has no labels, so there is no recall to report")
    click.echo(f"metrics: {output}/metrics.json")


def _print_bundle(output: str) -> None:
    bundle = f"{output}/bundle"
    click.echo(f"bundle:  {bundle}\nlogs:    tensorboard --logdir {output}")
    click.echo(f"next:    cvgl-ray localize --bundle {bundle} --gallery DIR --query IMAGE")


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
