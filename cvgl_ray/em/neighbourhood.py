"""Second-order matching: two rows belong together the more, the better their neighbours match each other.

A query's neighbours within its own view often show the same place or one like it; what their matches say
is evidence that no single similarity holds, and the many drone images of a place vote for one reference.

Only candidates count, each row's nearest of the other view: the work grows with the rows, not with their
square. Small views have all pairs as candidates.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse
import torch

from cvgl_ray.search.csls import hubness
from cvgl_ray.search.sparse import Pairs, pairs_of
from cvgl_ray.search.topk import Nearest, nearest_within
from cvgl_ray.search.views import Found, Hubness, Search

CANDIDATES = 32  # of each row in the other view, at least
FULL = 2**18  # pairs up to which all are candidates
LINKS = 30  # of each row within its view, at most
ITERATIONS = 6
SINKHORN_ITERATIONS = 20
SINKHORN_TEMPERATURE = 0.3  # in standard deviations of the scores
SCALE_NEIGHBOURS = 5  # of the local scale of the neighbourhood term

Graphs = tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]  # of the query view and the reference view


def view_graph(
    rows: np.ndarray, search: Callable[[np.ndarray, int], Nearest] = nearest_within
) -> scipy.sparse.csr_array:
    """See `linked`, of rows [N, D] float32, L2-normalised; search: a view's k nearest rows within it."""
    return linked(len(rows), partial(search, rows))


def linked(count: int, search: Callable[[int], Nearest]) -> scipy.sparse.csr_array:
    """Who is near whom within one view: [N, N] sparse float32, rows summing to 1, no self-loops.

    count: N, its rows; search: the k nearest of each row within the view, itself among them. Each row is
    linked to its ceil(sqrt N) nearest, at most LINKS, weighted by the cosine where it is positive; a link of
    either end counts for both.
    """
    if count < 2:
        return scipy.sparse.csr_array((count, count), dtype=np.float32)
    found = search(min(LINKS, math.ceil(math.sqrt(count)), count - 1) + 1)
    scores, ids = found.scores.ravel(), found.ids.ravel()
    sources = np.repeat(np.arange(count), found.ids.shape[1])
    keep = (ids != sources) & (ids >= 0) & (scores > 0)
    links = scipy.sparse.csr_array(
        (scores[keep], (sources[keep], ids[keep])), shape=(count, count), dtype=np.float32
    )
    links = links.maximum(links.T)
    sums = np.asarray(links.sum(axis=1)).ravel()
    return scipy.sparse.csr_array(links.multiply(1 / np.maximum(sums, 1e-12)[:, None]), dtype=np.float32)


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
        k = max(candidates(*(graph.shape[0] for graph in self.graphs)), self.neighbours, k_query, k_reference)
        of_query, of_reference = (found.near for found in self.search.nearest(k, k))
        cosines = pairs_of(of_query, of_reference)
        own = cosines
        if self.scores == "csls":
            own = own.less(*(hubness(near.first(self.neighbours)) for near in (of_query, of_reference)))
        total = neighbourhood_scores(own, self.graphs, self.weight)
        return (
            _found(total, cosines, 0, max(2, k_query)),
            _found(total, cosines, 1, max(2, k_reference)),
        )


def candidates(queries: int, references: int) -> int:
    """How many candidates each row has in the other view, at most."""
    return max(CANDIDATES, FULL // max(1, queries, references))


def _found(total: Pairs, cosines: Pairs, side: int, k: int) -> Found:
    """Each row's best by the total score, and the cosine of its best."""
    near = total.nearest(side, min(k, total.shape[1 - side]))
    best, rows = near.best(), np.arange(total.shape[side])
    query, reference = (rows, best) if side == 0 else (best, rows)
    keys = cosines.query.astype(np.int64) * total.shape[1] + cosines.reference  # rising, see Pairs
    place = np.searchsorted(keys, query.astype(np.int64) * total.shape[1] + reference)
    cosine = (
        cosines.values[np.minimum(place, len(keys) - 1)] if len(keys) else np.zeros(len(rows), np.float32)
    )
    return Found(near, np.where(best >= 0, cosine, np.float32(-1)))


def neighbourhood_scores(scores: Pairs, graphs: Graphs, weight: float) -> Pairs:
    """Scores plus `weight` times those of the rows' neighbours, each in standard deviations.

    Iterated: P = Sinkhorn(T), T = z(scores) + weight * z(CSLS(Gq P Gr^T)), on the pairs given: z standardises
    over them, all others have no match, and Gq, Gr are the views' graphs.
    """
    base = scores.standardised()
    total = base
    for _ in range(ITERATIONS):
        match = sinkhorn(total.of(total.values / SINKHORN_TEMPERATURE), SINKHORN_ITERATIONS)
        around = neighbours_mean(match, graphs).csls(SCALE_NEIGHBOURS).standardised()
        total = base.of(base.values + weight * around.values)
    return total


def sinkhorn(logits: Pairs, iterations: int) -> Pairs:
    """exp of logits, scaled towards equal column sums and rows that sum to 1 (Sinkhorn, 1964).

    Products with the scales of rows and columns take a sixth of the time of logarithms of sums. Logits more
    than 690 below the largest count as that: float64 holds no more.
    """
    values = logits.values.astype(np.float64)
    kernel = _matrix(logits, np.exp(np.maximum(values - values.max(initial=-math.inf), -690)))
    transposed = kernel.T  # once: few rows are scaled in less time than this takes
    rows, columns = np.ones(logits.shape[0]), np.ones(logits.shape[1])
    for _ in range(iterations):
        columns = 1 / np.maximum(transposed @ rows, 1e-300)
        rows = 1 / np.maximum(kernel @ columns, 1e-300)
    return logits.of(kernel.data * rows[logits.query] * columns[logits.reference])


def neighbours_mean(match: Pairs, graphs: Graphs) -> Pairs:
    """Gq P Gr^T at the pairs themselves: the mean match of both rows' neighbours."""
    from cvgl_ray.em.compiled import mean_at  # here: its compiler takes a third of a second to import

    own, of_query, of_reference = (
        (graph.indptr, graph.indices, graph.data) for graph in (_matrix(match, match.values), *graphs)
    )
    threads, width = torch.get_num_threads(), match.shape[1]
    found = np.zeros(len(match.values), np.float32)
    if threads == 1:
        mean_at(0, match.shape[0], own, of_query, of_reference, width, found)
        return match.of(found)
    cuts = pairwise(np.linspace(0, match.shape[0], threads + 1).astype(int))
    with ThreadPoolExecutor(threads) as pool:  # the compiled loop lets others run meanwhile
        list(pool.map(lambda cut: mean_at(cut[0], cut[1], own, of_query, of_reference, width, found), cuts))
    return match.of(found)


def _matrix(pairs: Pairs, values: np.ndarray) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((values, pairs.reference, pairs.starts(0)), shape=pairs.shape)
