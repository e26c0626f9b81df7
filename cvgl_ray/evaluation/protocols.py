"""Who is asked and who is searched: the directions of a data set, and the evaluation of one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.hit_rate import among
from cvgl_ray.evaluation.metres import SDM_DEPTHS, retrieval_metres
from cvgl_ray.evaluation.metrics import Metrics, QueryResults, geodesic_error_m, query_results, summarize
from cvgl_ray.evaluation.relevance import coordinates, judged
from cvgl_ray.search.ranks import Relevant
from cvgl_ray.search.topk import check_k, top_k


@dataclass(frozen=True)
class Direction:
    """One retrieval: every query is searched in the whole gallery."""

    name: str  # "drone->satellite"
    queries: Catalog
    gallery: Catalog


def directions(catalog: Catalog, query_view: str, reference_view: str) -> list[Direction]:
    """The retrievals that a catalog allows, query view -> reference view first, then the way back.

    With images of split "query" (University-1652's test folders): these are searched in split "gallery" of
    the other view, where a data set's distractors are too. A direction that lacks either side is left out.

    Without any (two plain folders, or a tree of train/ alone), one adapts to an area and localises in it: the
    images of split "train" are the queries, and the gallery is the other view's "train", with what its split
    "gallery" adds as distractors.

    Raises:
        InputError: no direction has both queries and a gallery.
    """
    held_out = len(catalog.select(split="query")) > 0
    found = []
    for asked, searched in ((query_view, reference_view), (reference_view, query_view)):
        queries = catalog.select(view=asked, split="query" if held_out else "train")
        gallery = catalog.select(view=searched, split="gallery" if held_out else None)
        if len(queries) and len(gallery):
            found.append(Direction(f"{asked}->{searched}", queries, gallery))
    if not found:
        raise InputError(
            f"nothing to evaluate: of {len(catalog)} images, neither {query_view!r} nor {reference_view!r} "
            "has queries for which the other has a gallery; check the names of the views and the folders"
        )
    return found


@dataclass(frozen=True)
class Retrieved:
    """A query's URI and its best references: their URIs, best first, and whether each shows its place."""

    query: str
    references: list[str]
    right: list[bool]


def examples(
    direction: Direction, query: Tensor, gallery: Tensor, labels: Labels, *, count: int = 6, depth: int = 5
) -> list[Retrieved]:
    """`count` evenly spaced queries of a direction and the `depth` best references of each.

    query, gallery: as of `evaluate_direction`.
    """
    shown = np.unique(np.linspace(0, len(query) - 1, count).astype(int))
    best = top_k(query[shown], gallery, min(depth, len(gallery)))[0].numpy()
    rows, first, number = judged(direction.queries, direction.gallery, labels).right
    right = among(best, Relevant(rows, first[shown], number[shown]))
    asked, answers = direction.queries.uris, direction.gallery.uris
    return [
        Retrieved(asked[row], [answers[column] for column in columns], hits)
        for row, columns, hits in zip(shown.tolist(), best.tolist(), right.tolist(), strict=True)
    ]


def evaluate_direction(
    direction: Direction,
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    *,
    ks: Sequence[int] | None = None,
) -> Metrics:
    """The figures of one direction, as metrics.json has them.

    Args:
        direction: who is asked and who is searched.
        query, gallery: [Q, D] and [G, D] float32, L2-normalised, on the CPU; row i embeds image i of the
            direction's catalog.
        labels: what is right for a query: a reference of the same, non-empty place, or one of its pairs.
        ks: the k of each R@k; None means those of 1, 5 and 10 that the gallery has room for.

    Returns:
        what `metrics.summarize` gives, and where every image of both sides has coordinates (the catalog's, or
        the labels' true positions) also what `metres.retrieval_metres` gives, of all queries.

    Raises:
        InputError: an image has no label, or as `metrics.retrieval_metrics`.
    """
    return judge_direction(direction, query, gallery, labels, ks=ks)[0]


def judge_direction(
    direction: Direction,
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    *,
    ks: Sequence[int] | None = None,
) -> tuple[Metrics, QueryResults]:
    """As `evaluate_direction`, with the results of each query."""
    assert len(query) == len(direction.queries)
    assert len(gallery) == len(direction.gallery)
    for k in ks or ():
        check_k(k, len(gallery))
    right = judged(direction.queries, direction.gallery, labels)
    results = query_results(query, gallery, *right)
    counted = len(gallery) if right.spots is None else len(np.unique(right.spots))
    metrics = summarize(results, counted, ks=ks)
    truth = coordinates(direction.queries, labels)
    where = coordinates(direction.gallery, labels)
    if np.isfinite(truth).all() and np.isfinite(where).all():
        best = top_k(query, gallery, min(max(SDM_DEPTHS), len(gallery)))[0].numpy()
        metrics |= retrieval_metres(geodesic_error_m(*where[:, best], *truth[:, :, None]))
    return metrics, results
