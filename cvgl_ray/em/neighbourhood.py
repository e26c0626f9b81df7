"""Second-order matching: two rows belong together the more, the better their neighbours match each other.

A query's neighbours within its own view often show the same place or one like it; what their matches say
is evidence that no single similarity holds, and the many drone images of a place vote for one reference.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.search.csls import csls
from cvgl_ray.search.topk import nearest_within
from cvgl_ray.search.views import Found, Hubness, Matrix

MAX_ENTRIES = 2**28  # of the score matrix, 1 GiB of float32; a few exist at a time, one of them in float64
ITERATIONS = 6
SINKHORN_ITERATIONS = 20
SINKHORN_TEMPERATURE = 0.3  # in standard deviations of the scores
SCALE_NEIGHBOURS = 5  # of the local scale of the neighbourhood term

Graphs = tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]  # of the query view and the reference view


def view_graph(rows: np.ndarray) -> scipy.sparse.csr_array:
    """Who is near whom within one view: [N, N] sparse float32, rows summing to 1, no self-loops.

    rows [N, D] float32, L2-normalised. Each row is linked to its ceil(sqrt N) nearest, weighted by the cosine
    where it is positive; a link of either end counts for both.
    """
    count = len(rows)
    if count < 2:
        return scipy.sparse.csr_array((count, count), dtype=np.float32)
    k = min(math.ceil(math.sqrt(count)), count - 1)
    found = nearest_within(rows, k + 1)
    scores, ids = found.scores.ravel(), found.ids.ravel()
    sources = np.repeat(np.arange(count), k + 1)
    keep = (ids != sources) & (scores > 0)
    links = scipy.sparse.csr_array(
        (scores[keep], (sources[keep], ids[keep])), shape=(count, count), dtype=np.float32
    )
    links = links.maximum(links.T)
    sums = np.asarray(links.sum(axis=1)).ravel()
    return scipy.sparse.csr_array(links.multiply(1 / np.maximum(sums, 1e-12)[:, None]), dtype=np.float32)


def check_size(queries: int, references: int) -> None:
    """Refuse a score matrix that would not fit in memory."""
    if queries * references > MAX_ENTRIES:
        raise InputError(
            f"estep.neighbourhood needs a score matrix of {queries} x {references}, more than {MAX_ENTRIES} "
            "entries; set estep.neighbourhood = 0 for a collection of this size"
        )


@dataclass(frozen=True)
class Neighbourly:
    """A search of two views' rows [nq, D] and [nr, D] float32 whose scores include the neighbours' matches.

    graphs: of the views; weight: see `neighbourhood_scores`; scores, neighbours: of the rows' own scores,
    "cosine" or "csls". Raises InputError where the matrix of scores is too large.
    """

    query: np.ndarray
    reference: np.ndarray
    graphs: Graphs
    weight: float
    scores: str
    neighbours: int

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search; hubs are the scores' own affair here. Both k are at least 2."""
        check_size(len(self.query), len(self.reference))
        matrix = torch.from_numpy(self.query) @ torch.from_numpy(self.reference).T
        own = csls(matrix, self.neighbours) if self.scores == "csls" else matrix
        total = neighbourhood_scores(own, self.graphs, self.weight)
        return Matrix(total, self.query, self.reference).nearest(k_query, k_reference)


def neighbourhood_scores(scores: torch.Tensor, graphs: Graphs, weight: float) -> torch.Tensor:
    """Scores [nq, nr] plus `weight` times those of the rows' neighbours, each in standard deviations.

    Iterated: P = Sinkhorn(T), T = z(scores) + weight * z(CSLS(Gq P Gr^T)), where z standardises over the
    matrix and Gq, Gr are the views' graphs.
    """
    base = _standardised(scores)
    total = base
    for _ in range(ITERATIONS):
        match = sinkhorn(total / SINKHORN_TEMPERATURE, SINKHORN_ITERATIONS).numpy()
        around = np.ascontiguousarray(_average(graphs[1], _average(graphs[0], match).T).T)
        total = base + weight * _standardised(csls(torch.from_numpy(around), SCALE_NEIGHBOURS))
    return total


def _average(graph: scipy.sparse.csr_array, rows: np.ndarray) -> np.ndarray:
    """Each row's neighbours' mean: graph [n, n] @ rows [n, m], a share of the graph a thread."""
    threads, rows = torch.get_num_threads(), np.ascontiguousarray(rows)  # else SciPy copies it in each thread
    cuts = np.linspace(0, graph.shape[0], threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:  # SciPy multiplies in one thread, and lets others run meanwhile
        return np.concatenate(list(pool.map(lambda a, b: graph[a:b] @ rows, cuts[:-1], cuts[1:])))


def sinkhorn(logits: torch.Tensor, iterations: int) -> torch.Tensor:
    """exp of logits [n, m], scaled towards equal column sums and rows that sum to 1 (Sinkhorn, 1964).

    Products with the scales of rows and columns take a sixth of the time of logarithms of sums; float64 holds
    a range of logits of 690, and what lies lower counts as that.
    """
    kernel = (logits - logits.max()).double().exp_().clamp_(min=1e-300)
    rows = torch.ones(len(kernel), dtype=torch.float64)
    for _ in range(iterations):
        columns = 1 / (rows @ kernel)
        rows = 1 / (kernel @ columns)
    return kernel.mul_(rows[:, None]).mul_(columns).to(logits.dtype)


def _standardised(matrix: torch.Tensor) -> torch.Tensor:
    return (matrix - matrix.mean()) / matrix.std(correction=0).clamp(min=1e-12)
