"""Figures of a retrieval: pure functions of ranks, tested against a one-query-at-a-time oracle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.bootstrap import intervals
from cvgl_ray.evaluation.hit_rate import hits
from cvgl_ray.search.ranks import MEMORY_BYTES, Relevant, of_places, relevant_ranks
from cvgl_ray.search.topk import check_k

DEFAULT_KS = (1, 5, 10)
EARTH_RADIUS_M = 6_371_008.8  # mean radius, IUGG

Metrics = dict[str, float | int]


@dataclass(frozen=True)
class QueryResults:
    """One row a query, in the order of the queries; rows of several shards may be concatenated."""

    first_rank: np.ndarray  # [Q] int64, 0-based rank of the best relevant reference; -1: the query has none
    ap: np.ndarray  # [Q] float64 in 0..1, University-1652's convention; 0 where the query has no relevant one
    ap_standard: np.ndarray  # [Q] float64 in 0..1, the usual convention; 0 likewise
    spot: np.ndarray  # [Q] int64, the first relevant reference: queries of one spot have one; -1 without any
    hit: np.ndarray | None = None  # [Q] bool, see `hit_rate.hits`


def retrieval_metrics(
    query: Tensor,
    gallery: Tensor,
    query_places: np.ndarray,
    gallery_places: np.ndarray,
    *,
    ks: Sequence[int] | None = None,
    memory: int = MEMORY_BYTES,
) -> Metrics:
    """Recall@k, recall@1% and average precision of a retrieval by inner product, in percent.

    Args:
        query, gallery: [Q, D] and [G, D] float32, L2-normalised, on the CPU.
        query_places, gallery_places: [Q] and [G] place ids (str); "" belongs to no place.
        ks: the k of each R@k; None means those of 1, 5 and 10 that the gallery has room for.
        memory: bytes that one chunk of queries may take.

    Returns: see `summarize`; ties are pessimistic (see `search.relevant_ranks`).

    Raises:
        InputError: a k of `ks` is larger than the gallery, no query has a relevant reference, or the
            embeddings differ in width or are not finite.
    """
    for k in ks or ():  # before the work, not after it
        check_k(k, len(gallery))
    assert len(gallery) == len(gallery_places)
    results = query_results(query, gallery, of_places(query_places, gallery_places), memory=memory)
    return summarize(results, len(gallery), ks=ks)


def query_results(
    query: Tensor,
    gallery: Tensor,
    relevant: Relevant,
    near: Relevant | None = None,
    spots: np.ndarray | None = None,
    *,
    memory: int = MEMORY_BYTES,
) -> QueryResults:
    """What `summarize` needs of every query; arguments and errors as in `retrieval_metrics`.

    relevant: the right references; near: those that are wrong, and that the hit rate passes over; spots [G]:
    references of one spot are ranked as one.
    """
    chunks = relevant_ranks(query, gallery, relevant, spots, memory=memory)
    parts = [(_first_rank(ranks, n), *average_precision(ranks, n)) for ranks, n in chunks]
    if not parts:
        return QueryResults(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    spot = np.full(len(query), -1)
    found = relevant.number > 0
    spot[found] = relevant.rows[relevant.first[found]]
    hit = None if near is None else hits(query, gallery, relevant, near)
    first_rank, ap, ap_standard = (np.concatenate(column) for column in zip(*parts, strict=True))
    return QueryResults(first_rank, ap, ap_standard, spot, hit)


def summarize(results: QueryResults, gallery: int, *, ks: Sequence[int] | None = None) -> Metrics:
    """Means over the queries that have a relevant reference, under the names of metrics.json.

    Args:
        results: of all queries.
        gallery: number of references searched, distractors included.
        ks: as in `retrieval_metrics`.

    Returns:
        "R@k", "R@1%" (k is a hundredth of the gallery rounded as Python rounds, at least 1: a true 1 %, where
        some published code takes rank 10), "AP" (University-1652's), "AP_standard", all in percent; "queries"
        (all of them), "gallery", and "queries_without_relevant", which the means leave out. "hit_rate" in
        percent where the results have `hit`. "R@k_low" and "R@k_high" are the bounds of the 95 % interval of
        each recall and of the hit rate, over the spots that the queries show (see `bootstrap.intervals`).

    Raises:
        InputError: a k is larger than the gallery, or no query has a relevant reference.
    """
    if ks is None:
        ks = [k for k in DEFAULT_KS if k <= gallery]
    for k in ks:
        check_k(k, gallery)
    has = results.first_rank >= 0
    if not has.any():
        raise InputError(
            f"none of the {len(has)} queries has a relevant image among the {gallery} references: "
            "check that both sides name their places alike"
        )
    first = results.first_rank[has]
    one_percent = max(1, round(gallery * 0.01))
    shares = {f"R@{k}": first < k for k in ks} | {"R@1%": first < one_percent}
    if results.hit is not None:
        shares["hit_rate"] = results.hit[has]
    metrics: Metrics = {name: 100 * float(np.mean(share)) for name, share in shares.items()}
    metrics["AP"] = 100 * float(np.mean(results.ap[has]))
    metrics["AP_standard"] = 100 * float(np.mean(results.ap_standard[has]))
    metrics["queries"] = len(has)
    metrics["gallery"] = gallery
    metrics["queries_without_relevant"] = int(np.sum(~has))
    bounds = 100 * intervals(np.stack(list(shares.values()), axis=1), results.spot[has])
    for name, (low, high) in zip(shares, bounds.T.tolist(), strict=True):
        metrics[f"{name}_low"], metrics[f"{name}_high"] = low, high
    return metrics


def average_precision(ranks: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision of every query in both conventions, 0..1; 0 for a query without a relevant reference.

    With the relevant reference number i (from 0) at rank r (from 0), the usual AP is the mean of the
    precisions (i + 1) / (r + 1). University-1652's evaluation (after Oxford5k's) integrates the curve of
    precision over recall by the trapezoid rule: the mean of (i / r + (i + 1) / (r + 1)) / 2, where i / r is
    1 at r = 0. A single relevant reference at rank r > 0 thus scores half of the usual AP.

    Args:
        ranks: [q, R] int64, ascending, of which the first n[i] of row i are real.
        n: [q] int64.

    Returns: University-1652's [q] and the usual [q], float64.
    """
    i = np.arange(ranks.shape[1])
    real = i < n[:, None]
    precision = np.where(real, (i + 1) / (ranks + 1), 0)
    before = np.where(real, np.where(ranks == 0, 1, i / np.maximum(ranks, 1)), 0)
    total = np.maximum(n, 1)
    return (precision + before).sum(axis=1) / 2 / total, precision.sum(axis=1) / total


def geodesic_error_m(
    latitude: np.ndarray, longitude: np.ndarray, true_latitude: np.ndarray, true_longitude: np.ndarray
) -> np.ndarray:
    """Great-circle distance in metres by the haversine formula, elementwise; arguments in degrees.

    The sphere has the Earth's mean radius: the error against the ellipsoid is below 0.6 %. NaN stays NaN.
    """
    lat, lon, true_lat, true_lon = map(np.radians, (latitude, longitude, true_latitude, true_longitude))
    a = np.sin((lat - true_lat) / 2) ** 2
    a = a + np.cos(lat) * np.cos(true_lat) * np.sin((lon - true_lon) / 2) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(a, 1)))


def _first_rank(ranks: np.ndarray, n: np.ndarray) -> np.ndarray:
    """[q] int64: the best rank, -1 where a query has no relevant reference."""
    return np.where(n > 0, ranks[:, 0], -1) if ranks.shape[1] else np.full(len(n), -1)
