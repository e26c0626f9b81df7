"""Street panoramas over tiles: frozen, adapted and aligned R@1 in one process, without Ray.

    python experiments/benchmarks/panoramas.py ROOT… --keep DIR [--set KEY=VALUE]…

Each ROOT is what `cvgl-ray synth --streets` writes; its world.json tells how much of the circle is seen.
Features and cells are kept in DIR, by content. Prints a row per root: R@1 panorama->tile / tile->panorama of
the frozen vectors, of those that `em` adapts by themselves, and of vector and alignment together, and how
many right pairs have their yaw within 15 degrees. Labels and headings are read after everything else.
"""

import csv
import json
import time
from pathlib import Path

import click
import numpy as np
import torch
from alignment_places import learn, similarities

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed.cells import sectors_of
from cvgl_ray.em.fit import fit
from cvgl_ray.features.batches import VectorWork, Work, missing_batches, run_here
from cvgl_ray.features.cell_model import build_cell_model, cell_recipe
from cvgl_ray.features.cell_projection import projected, projection
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.collecting import Rows, collect
from cvgl_ray.features.preparing import Preparing
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import FEATURE, FeatureStore
from cvgl_ray.features.strip_cells import StripWork
from cvgl_ray.features.variants import Averaged
from cvgl_ray.search.csls import csls
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.filesystem import read_bytes

VIEWS = ("street", "satellite")
CONFIG = Path(__file__).parents[1] / "street_panorama.toml"


@click.command()
@click.argument("roots", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--keep", required=True, type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
def main(roots: tuple[Path, ...], keep: Path, overrides: tuple[str, ...]) -> None:
    for root in roots:
        world = json.loads((root / "world.json").read_text())["parameters"]
        seen = f"pretransform.query.field_of_view={world['field_of_view']}"
        config = load_config(CONFIG, (f"dataset.root={root}", seen, *overrides))
        catalog = layouts.scan("folders", str(root), *VIEWS)
        started = time.process_time()
        ids = [catalog.select(view=view).image_ids for view in VIEWS]
        digests = [file_digest(read_bytes(uri)) for uri in catalog.uris]
        of = dict(zip(catalog.image_ids, digests, strict=True))
        vectors = _vectors(config, catalog, digests, keep, [[of[x] for x in side] for side in ids])
        cells = _cells(config, catalog, digests, keep, [[of[x] for x in side] for side in ids])
        extracted = time.process_time()
        own, _ = fit(vectors[0], vectors[1], config.learning)
        adapted = csls(similarities(own.adapter, vectors), config.retrieval.neighbours)
        aligner = Aligner(cells[0], [cells[1]], Settings(candidates=config.alignment.candidates))
        aligned = learn(aligner, vectors, config)
        yaws = _yaws(aligner)
        truth, turned = _truth(root, world, ids)
        frozen = torch.from_numpy(vectors[0] @ vectors[1].T)
        named = {"frozen": frozen, "adapted": adapted, "aligned": aligned}
        rows = ", ".join(f"{name} {_recall(scores, truth)}" for name, scores in named.items())
        right = truth[:, None] == np.arange(len(ids[1]))
        off = np.abs((yaws[right] - turned + 180) % 360 - 180)
        near = f"yaw of right pairs within 15 degrees: {100 * float((off <= 15).mean()):.0f} %"
        spent = (
            f"{extracted - started:.0f} s of CPU to extract, {time.process_time() - extracted:.0f} to learn"
        )
        print(f"{root.name}: {rows}; {near}; {spent}", flush=True)


def _vectors(
    config: Config, catalog: Catalog, digests: list[str], keep: Path, wanted: list[list[str]]
) -> list[np.ndarray]:
    backbone = build_backbone(config.backbone)
    views = config.pretransform.settled()
    sections = dict(zip(VIEWS, (views.query, views.reference), strict=True))
    work = VectorWork(backbone, {view: pretransform_of(made).variants for view, made in sections.items()})
    recipes = {view: recipe(backbone, config.backbone, made) for view, made in sections.items()}
    rows = _stored(work, recipes, catalog, digests, keep / "features", wanted)
    return [
        (part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32)
        for part in (side.astype(np.float32) for side in rows)
    ]


def _cells(
    config: Config, catalog: Catalog, digests: list[str], keep: Path, wanted: list[list[str]]
) -> list[Cells]:
    model = build_cell_model(config.backbone, config.cells.layer)
    backbone, sectors = config.backbone, sectors_of(config)
    preparing = Preparing(model.preprocessing, backbone.image_size, 1.0, backbone.interpolation)
    work = StripWork(model, sectors, preparing)
    made = cell_recipe(model, backbone)
    recipes = {view: {**made, "strip": sectors[view].recipe()} for view in VIEWS}
    rows = _stored(work, recipes, catalog, digests, keep / "cells", wanted)
    parts = [sectors[view].parts(side) for view, side in zip(VIEWS, rows, strict=True)]
    directions = projection([parts[0]], [parts[1]])
    parts = [projected(side, directions) for side in parts]
    return [Cells(side.maps.flatten(1, 2)[:, None], side.masks[:, :1]) for side in parts]


def _stored(
    work: Work, recipes: dict, catalog: Catalog, digests: list[str], keep: Path, wanted: list[list[str]]
) -> list[np.ndarray]:
    stores = {view: FeatureStore(keep, view, made) for view, made in recipes.items()}
    for store in stores.values():
        store.open()
    batches = missing_batches(catalog, digests, stores, 16)
    rows: dict[str, Rows] = dict(stores)
    if isinstance(work, VectorWork):
        rows = {
            view: Averaged(store, work.variants[view], {}, tuple(work.variants[view]))
            for view, store in stores.items()
        }
    if batches:
        collect(run_here(batches, work), rows, sum(len(batch["digests"]) for batch in batches))
    return [stores[view].read(side, FEATURE) for view, side in zip(VIEWS, wanted, strict=True)]


def _yaws(aligner: Aligner) -> np.ndarray:
    """Degrees [Nq, Nr] clockwise from north that each panorama's middle looks at, on each tile."""
    found = aligner.found
    assert found is not None
    return -360.0 * found.heading / len(aligner.prior.heading) % 360


def _truth(root: Path, world: dict, ids: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Of each panorama its tile's row and the heading of its middle, as the renderer drew it."""
    with open(root / "labels.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    place = {row["image_id"]: row["place_id"] for row in rows}
    order = [row["image_id"] for row in rows if row["image_id"].startswith("street/")]
    drawn = {
        name: np.random.default_rng([world["seed"], n, 2]).uniform(0, 360) for n, name in enumerate(order)
    }
    tiles = {place[name]: row for row, name in enumerate(ids[1])}
    headings = [drawn[name] if world["turned"] else 0.0 for name in ids[0]]
    return np.array([tiles[place[name]] for name in ids[0]]), np.array(headings)


def _recall(scores: torch.Tensor, truth: np.ndarray) -> str:
    forth = float((scores.argmax(1).numpy() == truth).mean())
    back = float((truth[scores.argmax(0).numpy()] == np.arange(scores.shape[1])).mean())
    return f"{100 * forth:.1f} / {100 * back:.1f}"


if __name__ == "__main__":
    main()
