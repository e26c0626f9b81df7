"""Matching policies and ways to retrieve beside the product's own, on cached features: two tables of R@1.

    python experiments/policies.py GRID.toml PART... --config BASE.toml --set dataset.root=DIR --output DIR

A PART of GRID's [parts] is a feature set that `cvgl-ray extract` has put into DIR. The first table adapts to
all training images, then to random shares of each view's, drawn apart so that partners go missing, and
evaluates all images; the second adapts to half of the places and evaluates the others (a split that reads
labels, as do the recalls; nothing that is fitted sees one). Figures are R@1 in percent, the mean of both
directions, by the configuration's retrieval.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from ablation import load_features, recalls
from policies_retrieval import OPTIONS
from policies_rounds import adapt, policies

from cvgl_ray.catalog import layouts
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Config, load_config
from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.loop import start
from cvgl_ray.em.retrieval import training_banks
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureTable, select
from cvgl_ray.features.views import QUERY, REFERENCE, unit_rows

Tables = dict[str, FeatureTable]  # by view
Figures = dict[str, np.ndarray]  # row -> R@1 of each draw
SHARES = (1.0, 0.8, 0.5)


def read_part(grid: Path, name: str) -> list[str]:
    """The overrides that make a feature set; InputError for an unknown one."""
    parts = tomllib.loads(grid.read_text(encoding="utf-8")).get("parts", {})
    if name not in parts:
        raise InputError(f"{grid} has no part {name!r}; its parts are: {', '.join(parts)}")
    overrides: list[str] = parts[name]
    return overrides


def spanned(tables: Tables) -> Tables:
    """The features in the coordinates of their rows' span: the same inner products in fewer dimensions."""
    rows = unit_rows(np.concatenate([table.features for table in tables.values()])).astype(np.float64)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > values[-1] * 1e-7
    features = (vectors[:, kept] * np.sqrt(values[kept])).astype(np.float32)
    ends = np.cumsum([len(table) for table in tables.values()])[:-1]
    split = zip(tables.items(), np.split(features, ends), strict=True)
    return {view: replace(table, features=part) for (view, table), part in split}


def policy_figures(catalog: Catalog, tables: Tables, config: Config, share: float, draws: int) -> Figures:
    """R@1 of each policy for every draw of a share of each view's training images, all images evaluated."""
    figures: dict[str, list[float]] = {}
    for draw in range(1 if share == 1 else draws):
        rng = np.random.default_rng(draw)
        trained = [
            features[np.sort(rng.permutation(len(features))[: round(share * len(features))])]
            for features in views_of(catalog.select(split="train"), tables, config)
        ]
        models: dict[str, ViewCentred] = {"the product (em.loop)": product(trained[0], trained[1], config)}
        models |= {
            name: adapt(trained[0], trained[1], config, policy) for name, policy in policies(config).items()
        }
        for name, model in models.items():
            found = recalls(catalog, tables, config, model, (trained[0], trained[1]))
            figures.setdefault(name, []).append(float(np.mean(found)))
    return {name: np.array(found) for name, found in figures.items()}


def product(query: np.ndarray, reference: np.ndarray, config: Config) -> ViewCentred:
    """The product's adapter after its last round."""
    learner, rounds = start(query, reference, config)
    for _ in rounds:
        pass
    return learner.adapter


def retrieval_figures(catalog: Catalog, tables: Tables, config: Config, draws: int) -> Figures:
    """R@1 of each way to retrieve on half of the places, after adapting to the other half, for every draw."""
    images = concat([catalog.select(split=split) for split in ("train", "gallery")])
    features = views_of(images, tables, config)
    labels = layouts.load_labels(config.dataset.layout, config.dataset.root, catalog)
    assert labels is not None  # the recalls of the first table needed them
    views = config.dataset.query_view, config.dataset.reference_view
    places = [labels.place_ids(images.select(view=view).image_ids) for view in views]
    everywhere = np.intersect1d(places[QUERY], places[REFERENCE])
    figures: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for draw in range(draws):
        half = np.random.default_rng(draw).choice(everywhere, len(everywhere) // 2, replace=False)
        seen = [np.isin(place, half) for place in places]
        unseen = [np.isin(place, everywhere) & ~known for place, known in zip(places, seen, strict=True)]
        trained = features[QUERY][seen[QUERY]], features[REFERENCE][seen[REFERENCE]]
        adapter = product(*trained, config)
        banks = training_banks(adapter, *trained)
        for name, option in OPTIONS.items():
            found = []
            for asked, searched in ((QUERY, REFERENCE), (REFERENCE, QUERY)):
                sides = features[asked][unseen[asked]], features[searched][unseen[searched]]
                best = option(adapter, banks, sides, asked).argmax(dim=1).numpy()
                right = places[searched][unseen[searched]][best] == places[asked][unseen[asked]]
                found.append(100 * right.mean())
            figures[name].append(float(np.mean(found)))
    return {name: np.array(found) for name, found in figures.items()}


def views_of(images: Catalog, tables: Tables, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Features of the images of the query view and of the reference view."""
    views = config.dataset.query_view, config.dataset.reference_view
    query, reference = (select(tables[view], images.select(view=view).image_ids).features for view in views)
    return query, reference


def markdown(title: str, columns: dict[str, list[Figures]], groups: list[str]) -> Iterator[str]:
    """A row a policy: in each column its mean over the draws, group by group, then what it is ahead by.

    Ahead of the first row, mean of the columns, a group a cell; with the standard error over the draws, which
    are the same for all rows and columns of a group.
    """
    yield f"| {' | '.join([title, *columns, *(f'ahead, {group}' for group in groups)])} |"
    yield "|:--" + "|--:" * (len(columns) + len(groups)) + "|"
    first, *_ = names = list(next(iter(columns.values()))[0])
    for name in names:
        cells = [" / ".join(f"{group[name].mean():.1f}" for group in column) for column in columns.values()]
        for group in zip(*columns.values(), strict=True):
            ahead = np.mean([figures[name] - figures[first] for figures in group], axis=0)
            error = f" ± {ahead.std(ddof=1) / len(ahead) ** 0.5:.1f}" if len(ahead) > 1 else ""
            cells.append(f"{ahead.mean():+.1f}{error}")
        yield f"| {' | '.join([name, *cells])} |"


@click.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("parts", nargs=-1, required=True)
@click.option("--config", "base", type=click.Path(exists=True, dir_okay=False), default=None)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE")
@click.option("--output", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--draws", default=5, show_default=True, type=click.IntRange(min=1))
def main(
    grid: Path, parts: tuple[str, ...], base: str | None, overrides: tuple[str, ...], output: Path, draws: int
) -> None:
    """Print the tables of the feature sets PARTS, parts of GRID, whose features are in OUTPUT."""
    rounds: dict[str, list[Figures]] = {part: [] for part in parts}
    options: dict[str, list[Figures]] = {}
    for part in parts:
        config = load_config(base, (*overrides, *read_part(grid, part)))
        root = output / "features"
        catalog, tables = load_features(config.dataset, config.backbone, config.pretransform, root)
        tables = spanned(tables)
        for share in SHARES:
            rounds[part].append(policy_figures(catalog, tables, config, share, draws))
            click.echo(f"{part}: policies, {100 * share:.0f} % of the images", err=True)
        options[part] = [retrieval_figures(catalog, tables, config, draws)]
    click.echo("\n".join(markdown("policy", rounds, [f"{100 * share:.0f} %" for share in SHARES])))
    click.echo("\n".join(["", *markdown("unseen places", options, ["all"])]))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"policies: {error}") from error
