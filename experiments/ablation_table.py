"""The tables of an ablation, from the lines of its log."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from cvgl_ray.config import Pretransforms
from cvgl_ray.features.recipe import pretransform_of

SCORES = ("mutual", "coverage", "agreement", "score")  # label-free, of the last round
COLUMNS = ("q->r", "r->q", "off best", *SCORES, "seconds", "fitted", "forwards", "seeds")


def markdown(lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A row a configuration: R@1 with its standard deviation over the seeds, scores, cost."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        runs[line["name"]].append(line)
    yield f"| configuration | {' | '.join(COLUMNS)} |"
    yield "|:--" + "|--:" * len(COLUMNS) + "|"
    for name, done in runs.items():
        recall = np.array([line["R@1"] for line in done])
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(recall.mean(0), recall.std(0), strict=True)]
        cells += [f"{max(off_best(line) for line in done):.1f}"]
        cells += [f"{np.mean([line['scores'][score] for line in done]):.2f}" for score in SCORES]
        cells += [f"{np.mean([line['seconds'] for line in done]):.1f}", f"{done[0]['fitted'] / 1e6:.1f} M"]
        yield f"| {name} | {' | '.join(cells)} | {forwards(done[0]['config'])} | {len(done)} |"


def followed(lines: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A row a score: its rank correlation with R@1, and how far its choice is from the best by R@1."""
    judged = [line for line in lines if np.isfinite([line["scores"][score] for score in SCORES]).all()]
    recall = np.array([np.mean(line["R@1"]) for line in judged])
    if len(judged) < 3:
        return
    yield f"| score, {len(judged)} runs, R@1 {recall.min():.1f} to {recall.max():.1f} | Spearman | lost |"
    yield "|:--|--:|--:|"
    for score in SCORES:
        values = [line["scores"][score] for line in judged]
        lost = recall.max() - recall[int(np.argmax(values))]
        yield f"| {score} | {spearmanr(values, recall).statistic:.2f} | {lost:.1f} |"


def off_best(line: dict[str, Any]) -> float:
    """How far the kept round is behind the best one, in points of R@1, mean of the directions."""
    return float(np.mean(line["curve"], axis=1).max() - np.mean(line["R@1"]))


def forwards(config: dict[str, Any]) -> str:
    """Backbone forwards an image of the query and of the reference view."""
    views = Pretransforms.model_validate(config["pretransform"]).settled()
    query, reference = (len(pretransform_of(view).variants) for view in (views.query, views.reference))
    return f"{query} / {reference}"
