"""Pseudo-labels of a few queries among all rows; the cost grows with the rows and not with their square."""

import numpy as np

from cvgl_ray.em.matching import PseudoLabels, examples_of, rooms, widest
from cvgl_ray.search.csls import hubness
from cvgl_ray.search.views import among, cosines

SHORTLIST = 16  # of a row, by cosine, among which the best by CSLS is looked for


def labels_of_asked(
    query: np.ndarray,
    reference: np.ndarray,
    asked: np.ndarray,
    *,
    scores: str = "csls",
    neighbours: int = 5,
    match: str = "mutual",
    threshold: float = -1.0,
    share: float = 1.0,
    device: str = "cpu",
) -> PseudoLabels:
    """What `pseudo_labels` of all rows [nq, D] and [nr, D] says of the queries asked, row ids [a].

    Candidates are all rows of both views, so the answer does not depend on how many are asked, but where the
    search is approximate; their number sets its cost, which grows with nq and nr, not with their product. By
    CSLS the best is looked for among a row's SHORTLIST best by cosine. A reference whose best query is not
    asked has none.
    device: where the search is done. Its index is "auto", whatever that of the training.
    """
    nq, nr = len(query), len(reference)
    room_q, room_r = rooms(nq, nr)
    near = among(query[asked], reference, max(SHORTLIST, room_q), device=device)
    back, first = None, _there(near.ids if scores == "csls" else near.best())
    if scores == "csls" or match == "mutual":
        back = among(reference[first], query, max(SHORTLIST, 2 * room_r), device=device)
    if scores == "csls":
        assert back is not None
        near = near.less(_spread(hubness(back.first(neighbours)), first, nr))
        best = _there(near.best())
        back = back.of(np.searchsorted(first, best))
        first = best
        second = _there(back.ids)
        hubs = hubness(among(query[second], reference, neighbours, device=device))
        back = back.less(_spread(hubs, second, nq))
    best, cosine = near.best(), cosines(query[asked], reference, near.best())
    keep = cosine > threshold
    best_of_reference = np.full(nr, -1)
    if back is not None:
        place = np.searchsorted(first, best)
        if match == "mutual":
            keep &= (back.ids[place, :room_r] == asked[:, None]).any(axis=1)
        position = _spread(np.arange(len(asked)), asked, nq, -1)
        best_of_reference[first] = np.where(back.best() >= 0, position[back.best()], -1)
    margin = near.lead()
    if share < 1:
        keep &= widest(margin, keep, share)
    of_query = np.where(keep, best, -1)
    chosen = best_of_reference  # of those whose best query is asked and keeps them
    kept = (chosen >= 0) & (of_query[chosen] == np.arange(nr))
    return PseudoLabels(
        query_rows=asked,
        reference_rows=np.arange(nr),
        of_query=of_query,
        of_reference=np.where(kept, chosen, -1),
        best_of_query=best,
        best_of_reference=best_of_reference,
        cosine=cosine,
        margin=margin,
        examples=examples_of(near.ids, asked, np.arange(nr)),
    )


def _there(ids: np.ndarray) -> np.ndarray:
    """The rows among ids, each once; an approximate search fills up with -1."""
    rows = np.unique(ids)
    return rows[rows >= 0]


def _spread(values: np.ndarray, rows: np.ndarray, count: int, other: float = 0) -> np.ndarray:
    """An array [count] with the values [n] at some rows [n] and `other` elsewhere."""
    spread = np.full(count, other, dtype=values.dtype)
    spread[rows] = values
    return spread
