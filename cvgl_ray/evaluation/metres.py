"""Figures of a localisation on a map, in metres and percent: pure functions of positions and their truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyproj import Geod
from scipy.stats import rankdata

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.truth import Truth

WITHIN_M = (5, 10, 25, 50, 100)
RIGHT_M = 25.0  # a place within this distance counts as right where confidence is judged
SDM_DEPTHS = (1, 3, 5)
SDM_SCALE_PER_M = 5e3 / 111_195  # DenseUAV's 5e3 per degree of latitude: e^-1 at 22 m


def localization_metrics(
    image_ids: Sequence[str],
    latitude: np.ndarray,
    longitude: np.ndarray,
    found: np.ndarray,
    truth: Truth,
    confidence: np.ndarray | None = None,
    error_m: np.ndarray | None = None,
    right_m: float = RIGHT_M,
) -> dict[str, Any]:
    """The figures of metrics.json.

    Args:
        image_ids: [N] of all photos; those without a row in the truth are counted and left out.
        latitude, longitude: [N] degrees WGS84 of what was found; not read where `found` is False.
        found: [N] bool.
        truth: positions; NaN for photos that lie off the map.
        confidence: [N] in 0..1, of all photos, found or not.
        error_m: [N] the expected error in metres; not read where `found` is False.
        right_m: within which a place counts as right for the AUROC.

    Returns:
        "queries": photos with a true position; "found": those of them that were found;
        "median_m": over all queries, a photo not found counts as infinitely far (None: it is infinite);
        "within": metres -> percent of all queries; "SDM@1" and its "sdm_scale_per_m";
        "without_truth": photos left out; "elsewhere": {"photos", "found"} of those off the map, if any;
        "confidence": {"AUROC", "right_m"}, right places against all else, photos from elsewhere included
        (None where all are right or none is); "error_m": {"median", "covers"}, the percentage of the found
        that lie within it.

    Raises:
        InputError: no photo has a true position.
    """
    found = np.asarray(found, bool)
    queries, elsewhere, distance = _distances(image_ids, latitude, longitude, found, truth)
    hit = found[queries]
    median = float(np.median(distance))
    metrics: dict[str, Any] = {
        "queries": len(queries),
        "found": int(hit.sum()),
        "median_m": median if np.isfinite(median) else None,
        "within": {str(limit): 100 * float(np.mean(distance <= limit)) for limit in WITHIN_M},
        "SDM@1": sdm(distance[:, None]),
        "sdm_scale_per_m": SDM_SCALE_PER_M,
        "without_truth": len(image_ids) - len(queries) - len(elsewhere),
    }
    if len(elsewhere):
        metrics["elsewhere"] = {"photos": len(elsewhere), "found": int(found[elsewhere].sum())}
    if confidence is not None:
        right = np.concatenate([distance <= right_m, np.zeros(len(elsewhere), bool)])
        judged = np.asarray(confidence)[np.concatenate([queries, elsewhere])]
        metrics["confidence"] = {"AUROC": auroc(judged, right), "right_m": right_m}
    if error_m is not None and hit.any():
        expected = np.asarray(error_m, np.float64)[queries][hit]
        covers = 100 * float(np.mean(distance[hit] <= expected))
        metrics["error_m"] = {"median": float(np.median(expected)), "covers": covers}
    return metrics


def retrieval_metres(distances_m: np.ndarray) -> dict[str, float]:
    """The figures in metres of a retrieval among references whose places are known.

    distances_m: [Q, K] of the K best references of each query, best first.

    Returns: "median_error_m" and "Dis@1_m", the median and the mean distance of the best reference; "L@5m"
    and so on, the percentage of queries whose best reference lies within; "SDM@1", "SDM@3" and "SDM@5" as far
    as K goes, in percent, with SDM_SCALE_PER_M.
    """
    best = distances_m[:, 0]
    figures = {"median_error_m": float(np.median(best)), "Dis@1_m": float(np.mean(best))}
    figures |= {f"L@{limit}m": 100 * float(np.mean(best <= limit)) for limit in WITHIN_M}
    depths = [k for k in SDM_DEPTHS if k <= distances_m.shape[1]]
    return figures | {f"SDM@{k}": sdm(distances_m[:, :k]) for k in depths}


def distance_m(
    latitude: np.ndarray, longitude: np.ndarray, true_latitude: np.ndarray, true_longitude: np.ndarray
) -> np.ndarray:
    """Geodesic distance in metres on the WGS84 ellipsoid, elementwise [N]; arguments in degrees."""
    _, _, distance = Geod(ellps="WGS84").inv(longitude, latitude, true_longitude, true_latitude)
    return np.asarray(distance)


def sdm(distances_m: np.ndarray, scale_per_m: float = SDM_SCALE_PER_M) -> float:
    """DenseUAV's SDM@K in percent: the mean over the queries of
    sum_k (K - k + 1) exp(-scale d_k) / sum_k (K - k + 1), k from 1 to K.

    distances_m: [Q, K] of the K best places of each query, best first; infinite where there is none. The
    scale is each data set's own: report it beside the figure.
    """
    weights = np.arange(distances_m.shape[1], 0, -1)
    return 100 * float(np.mean(np.exp(-scale_per_m * distances_m) @ weights / weights.sum()))


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive scores higher than a negative, a tie counting half; None without both.

    scores: [N], not NaN; positive: [N] bool. By ranks (Mann and Whitney, 1947).
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _distances(
    image_ids: Sequence[str], latitude: np.ndarray, longitude: np.ndarray, found: np.ndarray, truth: Truth
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the photos with a true position, rows of those off the map, errors in metres of the former."""
    number = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    place = np.array([number.get(image_id, -1) for image_id in image_ids], np.int64)
    known = np.flatnonzero(place >= 0)
    true_latitude, true_longitude = truth.latitude[place[known]], truth.longitude[place[known]]
    on_map = np.isfinite(true_latitude) & np.isfinite(true_longitude)
    if not on_map.any():
        raise InputError(
            f"none of the {len(image_ids)} photos has a true position: the truth's image_id is the photo's"
            f" name, such as {image_ids[0] if len(image_ids) else 'DJI_0001.JPG'!r}"
        )
    queries = known[on_map]
    hit = found[queries]
    place_found = np.asarray(latitude)[queries][hit], np.asarray(longitude)[queries][hit]
    distance = np.full(len(queries), np.inf)
    distance[hit] = distance_m(*place_found, true_latitude[on_map][hit], true_longitude[on_map][hit])
    return queries, known[~on_map], distance
