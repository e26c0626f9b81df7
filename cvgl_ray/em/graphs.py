"""Who is near whom within a view, in the frozen features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import within

LINKS = 30  # of each row within its view, at most


@dataclass(frozen=True)
class Graph:
    """The links of a view's N rows, which stand in an order in which neighbours are close.

    links: [N, N] sparse float32, each row summing to 1, no self-loops; its n-th row and column are the
    view's row order[n], and place[m] is where the view's row m stands.
    Order: reverse Cuthill-McKee (Cuthill and McKee, 1969). What is read together then lies together: the
    neighbours' mean takes a quarter of the time at a million rows (experiments/LOG.md).
    """

    links: scipy.sparse.csr_array
    order: np.ndarray
    place: np.ndarray


Graphs = tuple[Graph, Graph]  # of the query view and the reference view


def view_graph(rows: np.ndarray, search: Callable[[np.ndarray, int], Nearest] = within) -> Graph:
    """See `linked`, of rows [N, D] float32, L2-normalised; search: a view's k nearest rows within it."""
    return linked(len(rows), partial(search, rows))


def linked(count: int, search: Callable[[int], Nearest]) -> Graph:
    """The graph of a view of `count` rows.

    search: the k nearest of each row within the view, itself among them. Each row is linked to its
    ceil(sqrt N) nearest, at most LINKS, weighted by the cosine where it is positive; a link of either end
    counts for both.
    """
    if count < 2:
        return ordered(scipy.sparse.csr_array((count, count), dtype=np.float32))
    found = search(min(LINKS, math.ceil(math.sqrt(count)), count - 1) + 1)
    scores, ids = found.scores.ravel(), found.ids.ravel().astype(np.int32)
    sources = np.repeat(np.arange(count, dtype=np.int32), found.ids.shape[1])
    keep = (ids != sources) & (ids >= 0) & (scores > 0)
    links = scipy.sparse.csr_array(
        (scores[keep], (sources[keep], ids[keep])), shape=(count, count), dtype=np.float32
    )
    links = scipy.sparse.csr_array(links.maximum(links.T))
    sums = np.asarray(links.sum(axis=1)).ravel()
    links.data *= np.repeat(1 / np.maximum(sums, 1e-12), np.diff(links.indptr))
    return ordered(links)


def ordered(links: scipy.sparse.csr_array) -> Graph:
    """A graph of links [N, N], of which either both ways are there or none; see Graph."""
    count = links.shape[0]
    if not count:
        return Graph(links, np.arange(0), np.arange(0))
    order = reverse_cuthill_mckee(scipy.sparse.csr_matrix(links), symmetric_mode=True).astype(np.int64)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    moved = links[order]
    moved.indices = place[moved.indices].astype(moved.indices.dtype)
    moved.has_sorted_indices = False
    moved.sort_indices()
    return Graph(moved, order, place)
