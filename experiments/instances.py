"""Differences of one image's variants, or noise on features, as the M-step's own positives: tables of R@1.

    python experiments/instances.py experiments/ablation.toml single recommended \
        --config experiments/thumbs.toml --set dataset.root=DIR --set backbone.checkpoint=FILE --output OUT

A part is one of the grid's [parts]. OUT keeps variants' features and finished figures, so that the command
can be stopped and started again; it belongs to one data set and one version of this file. A weight is that
of the instances' covariance beside the pairs'. Figures are R@1 in percent, the mean of both directions, after
the last round, by the configuration's retrieval: training images adapted to and test images evaluated
("all"); the same with random 80 % of each view's training images, drawn apart; half of all places adapted to
and the others evaluated ("unseen"; a split that reads labels, as do the recalls; nothing fitted sees one).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from instances_features import View, load_view
from instances_rows import WIDEST_LINEAR, Make, Variants, closed_rows, linear_rows
from policies import Figures, markdown, read_part

from cvgl_ray.catalog import layouts
from cvgl_ray.config import Config, load_config
from cvgl_ray.em.loop import frozen_graphs, local_matcher, run_rounds
from cvgl_ray.em.retrieval import Retriever, training_banks
from cvgl_ray.errors import InputError
from cvgl_ray.features.views import QUERY, REFERENCE, unit_rows, view_mean
from cvgl_ray.storage.files import write_atomically

Sides = list[np.ndarray]  # something of each view
Split = list[tuple[np.ndarray, np.ndarray]]  # of each view: which images are adapted to, which evaluated
GROUPS = {"all": 1, "unseen": 5, "80 %": 5}  # draws


def splits(views: list[View], group: str, draw: int) -> Split:
    """Who is adapted to and who is evaluated."""
    rng = np.random.default_rng(draw)
    if group == "unseen":
        everywhere = np.intersect1d(views[QUERY].places, views[REFERENCE].places)
        half = rng.choice(everywhere, len(everywhere) // 2, replace=False)
        seen = [np.isin(view.places, half) for view in views]
        return [(known, ~known) for known in seen]
    found = []
    for view in views:
        rows = np.flatnonzero(view.train)
        kept = rows if group == "all" else rng.permutation(rows)[: round(0.8 * len(rows))]
        found.append((np.isin(np.arange(len(view.train)), kept), view.test))
    return found


def prepared(views: list[View], split: Split) -> tuple[Sides, Sides, Variants]:
    """Normalised rows of each view's images adapted to and of those evaluated, and variants of the former."""
    trained, tested, variants = [], [], []
    for view, (known, evaluated) in zip(views, split, strict=True):
        kinds = {kind: centred(rows, known) for kind, rows in view.kinds.items()}
        [base] = kinds.pop("")
        trained.append(base[known])
        tested.append(base[evaluated])
        variants.append({kind: rows[:, known] for kind, rows in kinds.items()})
    return trained, tested, variants


def recall(make: Make, sides: tuple[Sides, Sides, Variants], places: Sides, config: Config) -> float:
    """R@1, the mean of both directions, of a learner's `prepared` sides; places: of the evaluated images."""
    trained, tested, variants = sides
    learner = make(config, trained[QUERY].shape[1], variants)
    query, reference = trained
    graphs = frozen_graphs(query, reference, learner.adapter) if config.estep.neighbourhood else None
    for _ in run_rounds(learner, query, reference, config, matcher=local_matcher(config.estep, graphs)):
        pass
    section, banks = config.retrieval, training_banks(learner.adapter.eval(), query, reference)
    model = Retriever(learner.adapter, banks, section.scores, section.neighbours, section.transductive)
    found = []
    for one, other in ((QUERY, REFERENCE), (REFERENCE, QUERY)):
        queries, gallery = model.sides(tested[one], tested[other], one)
        best = (queries @ gallery.T).argmax(dim=1).numpy()
        found.append(100 * (places[other][best] == places[one]).mean())
    return float(np.mean(found))


def centred(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Variants [k, N, D] as unit rows, each variant centred by its own mean over the images adapted to."""
    return np.stack([unit_rows(variant - view_mean(variant[known])) for variant in rows])


def figures(rows: dict[str, Make], views: list[View], config: Config, log: Path) -> Iterator[Figures]:
    """Of each group R@1 of every row and draw, taken from the log where they are done."""
    done = json.loads(log.read_text()) if log.exists() else {}
    for group, draws in GROUPS.items():
        for draw in range(draws):
            missing = [name for name in rows if f"{group} {draw} {name}" not in done]
            if not missing:
                continue
            split = splits(views, group, draw)
            sides = prepared(views, split)
            places = [view.places[tested] for view, (_, tested) in zip(views, split, strict=True)]
            for name in missing:
                done[f"{group} {draw} {name}"] = recall(rows[name], sides, places, config)
                write_atomically(log, lambda path: path.write_text(json.dumps(done)))
        yield {name: np.array([done[f"{group} {draw} {name}"] for draw in range(draws)]) for name in rows}


@click.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("parts", nargs=-1, required=True)
@click.option("--config", "base", type=click.Path(exists=True, dir_okay=False), default=None)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(
    grid: Path, parts: tuple[str, ...], base: str | None, overrides: tuple[str, ...], output: Path
) -> None:
    """Print the tables of the feature sets PARTS, parts of GRID."""
    tables: list[dict[str, list[Figures]]] = [{}, {}]
    for part in parts:
        config = load_config(base, (*overrides, *read_part(grid, part), "adapter.norm=none"))
        dataset, shown = config.dataset, config.pretransform
        catalog = layouts.scan(dataset.layout, dataset.root, dataset.query_view, dataset.reference_view)
        labels = layouts.load_labels(dataset.layout, dataset.root, catalog)
        if labels is None:
            raise InputError(f"{dataset.root} has no labels, and the tables' figures are recalls; give some")
        views = []
        for view, section in ((dataset.query_view, shown.query), (dataset.reference_view, shown.reference)):
            places = labels.place_ids(catalog.select(view=view).image_ids)
            views.append(load_view(config, catalog, places, view, section, output))
        wide = views[0].kinds[""].shape[-1] > WIDEST_LINEAR
        for table, rows in zip(tables, (closed_rows(), {} if wide else linear_rows()), strict=True):
            if rows:
                table[part] = list(figures(rows, views, config, output / f"{part}.json"))
    for title, table in zip(("closed form", "by gradient"), tables, strict=True):
        if table:
            click.echo("\n".join(["", *markdown(title, table, list(GROUPS))]))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"instances: {error}") from error
