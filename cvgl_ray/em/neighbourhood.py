"""Second-order matching: two rows belong together the more, the better their neighbours match each other.

A query's neighbours within its own view often show the same place or one like it; what their matches say
is evidence that no single similarity holds, and the many drone images of a place vote for one reference.

Only candidates count, each row's nearest of the other view: the work grows with the rows, not with their
square. Small views have all pairs as candidates.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
import torch

from cvgl_ray.em.graphs import Graphs
from cvgl_ray.search.csls import hubness
from cvgl_ray.search.sparse import Pairs, pairs_of
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Found, Hubness, Search

CANDIDATES = 32  # of each row in the other view, at least
FULL = 2**18  # pairs up to which all are candidates
ITERATIONS = 6
SINKHORN_ITERATIONS = 20
SINKHORN_TEMPERATURE = 0.3  # in standard deviations of the scores
SCALE_NEIGHBOURS = 5  # of the local scale of the neighbourhood term

Links = tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]  # of the query view and the reference view


@dataclass(frozen=True)
class Neighbourly:
    """A search of two views, wherever their rows lie, whose scores include the neighbours' matches.

    graphs: of the views; weight: see `neighbourhood_scores`; scores, neighbours: of the rows' own scores,
    "cosine" or "csls".
    """

    search: Search
    graphs: Graphs
    weight: float
    scores: str
    neighbours: int

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; hubs are the scores' own affair here. Both k are at least 2."""
        of_query, of_reference = self.graphs
        sizes = len(of_query.order), len(of_reference.order)
        k = max(candidates(*sizes), self.neighbours, k_query, k_reference)
        found = self.search.nearest(k, k)
        near_q = _renumbered(found[0].near, of_query.order, of_reference.place)
        near_r = _renumbered(found[1].near, of_reference.order, of_query.place)
        cosines = pairs_of(near_q, near_r)
        own = cosines
        if self.scores == "csls":
            own = own.less(*(hubness(near.first(self.neighbours)) for near in (near_q, near_r)))
        total = neighbourhood_scores(own, (of_query.links, of_reference.links), self.weight)
        return (
            _found(total, cosines, 0, max(2, k_query), of_query.place, of_reference.order),
            _found(total, cosines, 1, max(2, k_reference), of_reference.place, of_query.order),
        )


def candidates(queries: int, references: int) -> int:
    """How many candidates each row has in the other view, at most."""
    return max(CANDIDATES, FULL // max(1, queries, references))


def _renumbered(near: Nearest, rows: np.ndarray, others: np.ndarray) -> Nearest:
    """The same where row n is what was row rows[n], and others[m] is what was row m of the other view."""
    ids = near.ids[rows]
    return Nearest(np.where(ids < 0, -1, others[ids]), near.scores[rows])


def _found(total: Pairs, cosines: Pairs, side: int, k: int, rows: np.ndarray, others: np.ndarray) -> Found:
    """Each row's best by the total score, and the cosine of its best, both renumbered."""
    near, places = total.nearest(side, min(k, total.shape[1 - side]))
    cosine = np.append(cosines.values, np.float32(-1))[places]
    return Found(_renumbered(near, rows, others), cosine[rows])


def neighbourhood_scores(scores: Pairs, links: Links, weight: float) -> Pairs:
    """Scores plus `weight` times those of the rows' neighbours, each in standard deviations.

    Iterated: P = Sinkhorn(T), T = z(scores) + weight * z(CSLS(Gq P Gr^T)), on the pairs given: z standardises
    over them, all others have no match, and Gq, Gr are the links within the views, by the pairs' numbers.
    """
    base = scores.standardised()
    total = base
    for _ in range(ITERATIONS):
        match = sinkhorn(total.of(total.values / SINKHORN_TEMPERATURE), SINKHORN_ITERATIONS)
        around = neighbours_mean(match, links).csls(SCALE_NEIGHBOURS).standardised()
        total = base.of(base.values + weight * around.values)
    return total


def sinkhorn(logits: Pairs, iterations: int) -> Pairs:
    """exp of logits, scaled towards equal column sums and rows that sum to 1 (Sinkhorn, 1964).

    Products with the scales of rows and columns take a sixth of the time of logarithms of sums. Logits more
    than 690 below the largest count as that: float64 holds no more.
    """
    from cvgl_ray.search.compiled import scale_rows

    values = logits.values.astype(np.float64)
    if len(values):
        torch.from_numpy(values).sub_(values.max()).clamp_(min=-690).exp_()
    kernel = logits.starts(), logits.reference, values
    of_queries, of_references = np.ones(logits.shape[0]), np.ones(logits.shape[1])
    sums = np.bincount(logits.reference, weights=values, minlength=logits.shape[1])
    for _ in range(iterations):
        of_references = 1 / np.maximum(sums, 1e-300)
        step = partial(scale_rows, matrix=kernel, of_columns=of_references, of_rows=of_queries)
        sums = np.sum(_in_parts(logits.shape[0], step), axis=0)
    values *= of_references[logits.reference]
    values *= of_queries[logits.query]
    return logits.of(values)


def neighbours_mean(match: Pairs, links: Links) -> Pairs:
    """Gq P Gr^T at the pairs themselves: the mean match of both rows' neighbours."""
    from cvgl_ray.search.compiled import mean_at

    own = match.starts(), match.reference, match.values
    of_query, of_reference = ((side.indptr, side.indices, side.data) for side in links)
    found = np.zeros(len(match.values), np.float32)
    mean = partial(
        mean_at, match=own, graph_q=of_query, graph_r=of_reference, width=match.shape[1], found=found
    )
    _in_parts(match.shape[0], mean)
    return match.of(found)


def _in_parts(count: int, work: Callable[[int, int], Any]) -> list[Any]:
    """What work(first, stop) says of each of as many parts of `count` rows as torch has threads.

    It is compiled and lets other threads run meanwhile.
    """
    edges = np.linspace(0, count, torch.get_num_threads() + 1).astype(int)
    with ThreadPoolExecutor(len(edges) - 1) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))
