"""What stored vectors of variants spare a second pre-transform, and what they cost the first.

python experiments/benchmarks/variants.py DIR --root PLACES --checkpoint FILE [--backbone NAME]

One process, no Ray. Three pre-transforms of the queries follow each other: two headings of three crops; four
headings of them; four of two of them. Seconds are of the CPU, of all threads together.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch

from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed import extract as stage
from cvgl_ray.features.backbone import FrozenBackbone

QUERIES = {
    "3 crops, 2 headings": ("[0.85, 0.7, 0.55]", 2),
    "3 crops, 4 headings": ("[0.85, 0.7, 0.55]", 4),
    "2 crops, 4 headings": ("[0.85, 0.7]", 4),
}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--root", required=True, help="University-1652's folders of places.")
@click.option("--checkpoint", required=True)
@click.option("--backbone", default="mobilenetv2_100")
def main(folder: Path, root: str, checkpoint: str, backbone: str) -> None:
    stage.FEW_TO_EXTRACT = 10**9  # all of it in this process
    catalog = layouts.scan("university1652", root, "drone", "satellite", ())
    given = (f"dataset.root={root}", f"backbone.name={backbone}", f"backbone.checkpoint={checkpoint}")
    counted = _count_forwards()
    found: dict[str, list[np.ndarray]] = {name: [] for name in QUERIES}
    for kept in (False, True):
        print("variants kept" if kept else "variants not kept")
        print("| query's pre-transform | forwards | s of CPU | s | features, bytes per image | variants |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, (crops, headings) in QUERIES.items():
            config = load_config(
                None,
                (*given, f"pretransform.query.crops={crops}", f"pretransform.query.orientations={headings}"),
            )
            counted.clear()
            cpu, wall = time.process_time(), time.perf_counter()
            found[name].append(_extracted(catalog, config, folder / str(kept), kept))
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            images = len(np.unique(found[name][-1], axis=0))  # a file that is there thrice counts once
            sizes = " | ".join(
                f"{_bytes(folder / str(kept) / where / 'drone') / images:.0f}"
                for where in ("features", "variants")
            )
            print(f"| {name} | {sum(counted)} | {cpu:.1f} | {wall:.1f} | {sizes} |", flush=True)
    for name, (alone, kept_apart) in found.items():
        print(f"{name}: the same bits: {np.array_equal(alone, kept_apart)}")


def _count_forwards() -> list[int]:
    """Images per forward, appended as they are taken."""
    counted: list[int] = []
    forward = FrozenBackbone._forward

    def counting(backbone: FrozenBackbone, batch: torch.Tensor) -> torch.Tensor:
        counted.append(len(batch))
        return forward(backbone, batch)

    FrozenBackbone._forward = counting  # type: ignore[assignment, method-assign]
    FrozenBackbone.try_out = lambda _: None  # type: ignore[method-assign,assignment]
    return counted


def _extracted(catalog: Catalog, config: Config, folder: Path, kept: bool) -> np.ndarray:
    """The queries' features [N, D]."""
    made = stage.extract(
        catalog,
        config,
        folder / "features",
        folder / "rejected.parquet",
        variants=folder / "variants" if kept else None,
    )
    table = made.tables["drone"]
    return table.rows(table.image_ids)


def _bytes(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


if __name__ == "__main__":
    main()
