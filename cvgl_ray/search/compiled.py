"""Loops over sparse pairs that neither NumPy nor SciPy runs well, compiled on their first call and kept.

Import it where it is used: its compiler takes a third of a second to import.
"""

import numba
import numpy as np

Row = np.ndarray
Csr = tuple[Row, Row, Row]  # of a sparse matrix: the rows' starts, columns and values
U = np.uint64  # of indices: of signed ones each is first compared with 0


@numba.njit(nogil=True, cache=True, fastmath=True)
def mean_at(first: int, stop: int, match: Csr, graph_q: Csr, graph_r: Csr, width: int, found: Row) -> None:
    """Fill `found` at the pairs of the queries from first to stop: see `neighbourhood.neighbours_mean`.

    NumPy and SciPy hold a number per product, ten times as slow.
    """
    starts, columns, values = match
    q_starts, q_links, q_weights = graph_q
    r_starts, r_links, r_weights = graph_r
    around = np.zeros(width, np.float32)  # the mean of the query's neighbours' rows
    for query in range(U(first), U(stop)):
        for link in range(U(q_starts[query]), U(q_starts[query + U(1)])):
            neighbour, weight = U(q_links[link]), q_weights[link]
            for pair in range(U(starts[neighbour]), U(starts[neighbour + U(1)])):
                around[U(columns[pair])] += weight * values[pair]
        for pair in range(U(starts[query]), U(starts[query + U(1)])):
            reference, mean = U(columns[pair]), np.float32(0)
            for link in range(U(r_starts[reference]), U(r_starts[reference + U(1)])):
                mean += r_weights[link] * around[U(r_links[link])]
            found[pair] = mean
        for link in range(U(q_starts[query]), U(q_starts[query + U(1)])):
            neighbour = U(q_links[link])
            for pair in range(U(starts[neighbour]), U(starts[neighbour + U(1)])):
                around[U(columns[pair])] = 0


@numba.njit(nogil=True, cache=True)
def scale_rows(first: int, stop: int, matrix: Csr, of_columns: Row, of_rows: Row) -> Row:
    """Half a step of Sinkhorn's, of the rows from first to stop, and the sums of the next: [m] float64.

    of_columns [m]: the columns' scales; of_rows [n] is filled with those by which each row sums to 1. Summed
    are the columns of the rows scaled so. Both in one pass: reading the matrix is what takes the time.
    """
    starts, columns, values = matrix
    sums = np.zeros(len(of_columns))
    for row in range(U(first), U(stop)):
        total = 0.0
        for pair in range(U(starts[row]), U(starts[row + U(1)])):
            total += values[pair] * of_columns[U(columns[pair])]
        scale = 1 / max(total, 1e-300)
        of_rows[row] = scale
        for pair in range(U(starts[row]), U(starts[row + U(1)])):
            sums[U(columns[pair])] += values[pair] * scale
    return sums


@numba.njit(nogil=True, cache=True)
def best_of(rows: Row, values: Row, pairs: Row, best: Row) -> None:
    """Fill pairs, best [n, k] with each row's k best of the e values, best first; of equals the earlier.

    rows, values [e]: whose they are; pairs: their places in [0, e), where there are fewer left as it is.
    best: -inf to begin with.
    """
    last = best.shape[1] - 1
    for pair in range(len(values)):
        row, value = rows[pair], values[pair]
        if value > best[row, last]:
            rank = last
            while rank > 0 and best[row, rank - 1] < value:
                pairs[row, rank], best[row, rank] = pairs[row, rank - 1], best[row, rank - 1]
                rank -= 1
            pairs[row, rank], best[row, rank] = pair, value


@numba.njit(nogil=True, cache=True)
def union(one: Csr, other: Csr, rows: Row, columns: Row, values: Row) -> int:
    """Fill rows, columns and values with the entries of two matrices, and return how many these are.

    Both have sorted columns. Where both have an entry, the first's counts.
    """
    count = 0
    for row in range(len(one[0]) - 1):
        a, b = one[0][row], other[0][row]
        a_stop, b_stop = one[0][row + 1], other[0][row + 1]
        while a < a_stop or b < b_stop:
            first = b == b_stop or (a < a_stop and one[1][a] <= other[1][b])
            column = one[1][a] if first else other[1][b]
            rows[count], columns[count] = row, column
            values[count] = one[2][a] if first else other[2][b]
            a += a < a_stop and one[1][a] == column
            b += b < b_stop and other[1][b] == column
            count += 1
    return count
