"""The one loop that neither NumPy nor SciPy runs well, compiled on its first call and kept."""

import numba
import numpy as np

Row = np.ndarray
Csr = tuple[Row, Row, Row]  # of a sparse matrix: the rows' starts, columns and values


@numba.njit(nogil=True, cache=True)
def mean_at(first: int, stop: int, match: Csr, graph_q: Csr, graph_r: Csr, width: int, found: Row) -> None:
    """Fill `found` at the pairs of the queries from first to stop: see `neighbourhood.neighbours_mean`.

    NumPy and SciPy hold a number per product, ten times as slow.
    """
    starts, columns, values = match
    q_starts, q_links, q_weights = graph_q
    r_starts, r_links, r_weights = graph_r
    around = np.zeros(width, np.float32)  # the mean of the query's neighbours' rows
    for query in range(first, stop):
        for link in range(q_starts[query], q_starts[query + 1]):
            neighbour, weight = q_links[link], q_weights[link]
            for pair in range(starts[neighbour], starts[neighbour + 1]):
                around[columns[pair]] += weight * values[pair]
        for pair in range(starts[query], starts[query + 1]):
            reference, mean = columns[pair], 0.0
            for link in range(r_starts[reference], r_starts[reference + 1]):
                mean += r_weights[link] * around[r_links[link]]
            found[pair] = mean
        for link in range(q_starts[query], q_starts[query + 1]):
            neighbour = q_links[link]
            for pair in range(starts[neighbour], starts[neighbour + 1]):
                around[columns[pair]] = 0.0
