"""Run a grid of named configurations over cached features, several seeds each, without Ray.

    python experiments/ablation.py GRID.toml --config BASE.toml --set dataset.root=DIR --output DIR

DIR is the output of `cvgl-ray extract`. Each finished configuration and seed becomes one line of
DIR/ablation.jsonl; started again, the command does what is missing, then prints a Markdown table over the
seeds. Each seed trains on its own random share (`--share`) of each view's training images, and all images are
evaluated. Labels are read for the recalls alone, and by the configurations that a grid marks "true-labels":
nothing else that is fitted or chosen here sees them.
"""

import json
import math
import os
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, lru_cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from ablation_table import SCORES, followed, markdown

from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Backbone, Config, Dataset, Pretransforms, load_config
from cvgl_ray.em.adapters import ViewCentred
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.matching import PseudoLabels, pseudo_labels
from cvgl_ray.em.retrieval import Retriever, banked, training_banks
from cvgl_ray.em.rounds import EStepRows, Matcher, run_rounds, start
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.embedded import direction_embeddings, with_features
from cvgl_ray.evaluation.protocols import directions, evaluate_direction
from cvgl_ray.features.recipe import build_backbone, recipe
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.table import FeatureTable, select
from cvgl_ray.storage.files import file_digest, write_atomically
from cvgl_ray.storage.filesystem import read_bytes

CURVE = 20  # at most about so many points of R@1 over the rounds
TRUE_LABELS = "true-labels"  # an item of a grid: the rounds learn from the true pairs


def read_grid(path: Path) -> dict[str, list[str]]:
    """Configuration name -> overrides, parts filled in; InputError for an unknown part."""
    try:
        grid = tomllib.loads(path.read_text(encoding="utf-8"))
        parts, configurations = grid["parts"], dict(grid.get("configurations", {}))
        cross = grid.get("cross", {"features": [], "learners": []})
        pairs = product(cross["features"], cross["learners"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"grid {path} cannot be read ({error}); it needs [parts] and [configurations] or [cross]"
        ) from error
    configurations |= {f"{features}: {learner}": [features, learner] for features, learner in pairs}
    parts = {TRUE_LABELS: [TRUE_LABELS], **parts}
    unknown = {x for items in configurations.values() for x in items if "=" not in x} - set(parts)
    if unknown:
        raise InputError(f"grid {path} has no part {sorted(unknown)[0]!r}; its parts are: {', '.join(parts)}")
    return {
        name: [override for item in items for override in ([item] if "=" in item else parts[item])]
        for name, items in configurations.items()
    }


@lru_cache(maxsize=1)  # configurations of the same features follow each other
def load_features(
    dataset: Dataset, backbone: Backbone, pretransform: Pretransforms, root: Path
) -> tuple[Catalog, dict[str, FeatureTable]]:
    """The images that have features in the store below `root`, and these features by view."""
    catalog = layouts.scan(
        dataset.layout, dataset.root, dataset.query_view, dataset.reference_view, dataset.distractors
    )
    model = build_backbone(backbone)
    tables = {}
    views = {dataset.query_view: pretransform.query, dataset.reference_view: pretransform.reference}
    for view, section in views.items():
        images = catalog.select(view=view)
        store = FeatureStore(root, view, recipe(model, backbone, section))
        tables[view] = select(store.table(images.image_ids, [_digest(uri) for uri in images.uris]))
    return with_features(catalog, tables), tables


@cache
def _digest(uri: str) -> str:
    return file_digest(read_bytes(uri))


def run_one(name: str, config: Config, share: float, root: Path, taught: bool = False) -> dict[str, Any]:
    """Fit and evaluate one configuration with one seed; a line of the log. taught: by the true labels."""
    catalog, tables = load_features(config.dataset, config.backbone, config.pretransform.settled(), root)
    sides = [
        drawn(
            select(tables[view], catalog.select(view=view, split="train").image_ids),
            share,
            np.random.default_rng((config.run.seed, number)),  # apart, so that partners go missing
        )
        for number, view in enumerate((config.dataset.query_view, config.dataset.reference_view))
    ]
    query, reference = (side.features for side in sides)
    learning = config.learning
    judge = HalfModels(query, reference, learning).judge if learning.agreement and not taught else None
    learner, rounds = start(query, reference, learning, judge)
    if taught:
        labels = layouts.load_labels(config.dataset.layout, config.dataset.root, catalog)
        assert labels is not None
        places = [labels.place_ids(side.image_ids) for side in sides]
        rounds = run_rounds(learner, query, reference, learning, matcher=true_pairs(*places))
    every = max(1, config.mstep.rounds // CURVE)
    seconds, curve, scalars = 0.0, [], {}
    started = time.perf_counter()
    for done in rounds:
        seconds, scalars = seconds + time.perf_counter() - started, done.scalars
        if learner.rounds_done % every == 0 or learner.rounds_done == config.mstep.rounds:
            curve.append(recalls(catalog, tables, config, learner.adapter, (query, reference)))
        started = time.perf_counter()
    learner.return_to_best()
    return {
        "name": name,
        "share": share,
        "labels_read": taught,
        "config": config.model_dump(mode="json"),
        "seconds": seconds,
        "fitted": sum(t.numel() for key, t in learner.adapter.state_dict().items() if key != "centre"),
        "scores": {score: scalars.get(f"labels/{score}", math.nan) for score in SCORES},
        "R@1": recalls(catalog, tables, config, learner.adapter, (query, reference)),
        "curve": curve,
    }


def drawn(table: FeatureTable, share: float, rng: np.random.Generator) -> FeatureTable:
    """A random share of a view's rows."""
    kept = rng.permutation(len(table))[: round(share * len(table))]
    return select(table, [table.image_ids[row] for row in np.sort(kept)])


def true_pairs(query_places: np.ndarray, reference_places: np.ndarray) -> Matcher:
    """A matcher of one process whose pairs are those of one place, each place a direction of its own."""
    places = np.unique([*query_places, *reference_places])

    def match(_round: int, rows: EStepRows) -> PseudoLabels:
        shown = (query_places[rows.query_rows], reference_places[rows.reference_rows])
        query, reference = ((side[:, None] == places).astype(np.float32) for side in shown)
        return pseudo_labels(
            query,
            reference,
            query_rows=rows.query_rows,
            reference_rows=rows.reference_rows,
            scores="cosine",
            match="argmax",
            threshold=0.5,
        )

    return match


def recalls(
    catalog: Catalog,
    tables: dict[str, FeatureTable],
    config: Config,
    adapter: ViewCentred,
    trained_on: tuple[np.ndarray, np.ndarray],
) -> list[float]:
    """R@1 in percent, as the configuration retrieves, of each direction of the data set."""
    dataset, section, training = config.dataset, config.retrieval, adapter.training
    labels = layouts.load_labels(dataset.layout, dataset.root, catalog)
    if labels is None:
        raise InputError(f"{dataset.root} has no labels, and the table's figures are recalls; give some")
    banks = training_banks(adapter.eval(), *banked(*trained_on))
    model = Retriever(adapter, banks, section.scores, section.neighbours, section.bank)
    found = [
        float(evaluate_direction(each, *direction_embeddings(each, tables, dataset, model), labels)["R@1"])
        for each in directions(catalog, dataset.query_view, dataset.reference_view)
    ]
    adapter.train(training)
    return found


def key(name: str, share: float, config: dict[str, Any]) -> str:
    """What a line of the log is known by: another name, share, configuration or seed is another line."""
    return json.dumps([name, share, config], sort_keys=True)


def run_all(
    jobs: list[tuple[str, Config, bool]], share: float, root: Path, processes: int
) -> Iterator[dict[str, Any]]:
    """The lines of all jobs as they finish, those of one feature set after each other."""
    jobs = sorted(jobs, key=lambda job: (repr(job[1].backbone), repr(job[1].pretransform)))
    threads = max(1, (os.cpu_count() or 1) // processes)
    # Spawned processes import NumPy and faiss anew, and these read it then.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(run_one, name, config, share, root, taught) for name, config, taught in jobs]
        for number, future in enumerate(as_completed(futures), start=1):
            click.echo(f"{number} of {len(jobs)}: {future.result()['name']}", err=True)
            yield future.result()


@click.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--config", "base", type=click.Path(exists=True, dir_okay=False), default=None)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
@click.option("--output", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(min=1))
def main(
    grid: Path,
    base: str | None,
    overrides: tuple[str, ...],
    output: Path,
    seeds: int,
    share: float,
    processes: int,
) -> None:
    """Run the configurations of GRID on the features in OUTPUT and print their table."""
    wanted = {}
    for name, items in read_grid(grid).items():
        for seed in range(seeds):
            settings = [item for item in items if item != TRUE_LABELS]
            config = load_config(base, (*overrides, *settings, f"run.seed={seed}"))
            taught = TRUE_LABELS in items
            wanted[key(name, share, config.model_dump(mode="json"))] = (name, config, taught)
    log = output / "ablation.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {key(line["name"], line["share"], line["config"]): line for line in lines}
    missing = [job for identity, job in wanted.items() if identity not in done]
    for line in run_all(missing, share, output / "features", processes):
        done[key(line["name"], line["share"], line["config"])] = line
        text = "".join(json.dumps(each) + "\n" for each in done.values())
        write_atomically(log, lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    table = [done[identity] for identity in wanted]
    click.echo("\n".join([*markdown(table), "", *followed(table)]))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"ablation: {error}") from error
