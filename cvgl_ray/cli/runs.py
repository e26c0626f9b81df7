"""The commands that run on a configuration and leave a folder: extract, train, tune, evaluate, quickstart.

The stages are imported inside the commands, after the configuration is read: `--help`, a mistyped option
and an unknown key need not wait for ray and torch.
"""

from pathlib import Path

import click

from cvgl_ray.cli import options, printing
from cvgl_ray.config import load_config, read_tree
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.config import load_sweep


@click.command()
@options.configured
def extract(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Extract a data set's frozen features.

    They lie in OUTPUT/features, or in features.cache; what is there already is not extracted again. Beside
    them, in variants, lie the vectors of each crop and heading that they are the mean of, where the disk has
    room: another pre-transform sends images through the network for those alone that are not there. That
    folder may be removed.
    """
    config = load_config(config_path, overrides)
    from cvgl_ray.stages import extract_stage

    found = extract_stage(config, output, address).extraction
    click.echo(
        f"features: {found.extracted} extracted, {found.reused} reused, {len(found.rejected)} rejected"
    )
    for image in found.rejected[:5]:
        click.echo(f"  rejected {image['uri']}: {image['reason']}")
    click.echo(f"next:     {printing.again('train', config_path, overrides, output, address)}")


@click.command()
@options.configured
def train(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Adapt to unlabelled training images.

    Writes OUTPUT/bundle, and evaluates it where there are labels.
    """
    config = load_config(config_path, overrides)
    from cvgl_ray.stages import train_stage

    printing.report(train_stage(config, output, address), output)
    printing.bundle(config, output)


@click.command()
@options.configured
def tune(config_path: str | None, overrides: tuple[str, ...], output: str, address: str) -> None:
    """Try many configurations, keep the best.

    The file's section [tune] describes them; OUTPUT/bundle is that of the highest label-free score.
    """
    sweep = load_sweep(config_path, overrides)
    if "://" in output:
        raise InputError(f"--output {output!r} is a URI, and a sweep takes a folder that all nodes see")
    from cvgl_ray.distributed.tune import sweep_stage

    folder = Path(output)
    report = sweep_stage(sweep, folder, address)
    click.echo((folder / "trials.md").read_text())
    printing.report(report, output)
    if (folder / "labels_table.md").exists():
        click.echo(f"labels:  {folder / 'labels_table.md'}, which the choice has not seen")
    click.echo(f"trials:  {folder / 'trials.csv'}, {folder / 'trials.png'}")
    printing.bundle(sweep.base, output)


@click.command()
@options.configured
@click.option("--bundle", type=options.FOLDER, default=None, help="What to judge; default: OUTPUT/bundle.")
def evaluate(
    config_path: str | None, overrides: tuple[str, ...], output: str, address: str, bundle: Path | None
) -> None:
    """Evaluate a bundle on a test split.

    The frozen features are evaluated beside it.

    The bundle's configuration is the base of --config and --set: they need to name only what is elsewhere
    now, such as dataset.root or backbone.checkpoint.
    """
    read_tree(config_path, overrides)
    from cvgl_ray.stages import evaluate_stage

    report, folder = evaluate_stage(
        bundle, output, config_path=config_path, overrides=overrides, address=address
    )
    printing.report(report, folder)
    click.echo(f"logs:    tensorboard --logdir {output}")


@click.command()
@click.option("--output", type=options.FOLDER, default="runs/quickstart", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Another number renders another world.")
@click.option("--photos", default=24, show_default=True, type=click.IntRange(min=4), help="Of the flight.")
@options.address
@options.verbose
def quickstart(output: Path, seed: int, photos: int, address: str) -> None:
    """Locate a rendered flight on its map.

    Needs no download; the truth is compared with at the very end.
    """
    from cvgl_ray.map_stages import quickstart_stage

    printing.flight(quickstart_stage(output, seed, photos, address), str(output))
