"""The two views, and what is computed of a view's frozen features alone: statistics and digests."""

import hashlib

import numpy as np

QUERY, REFERENCE = 0, 1


class Columns:
    """Some dimensions of a feature matrix, which are copied only for the rows that are taken."""

    def __init__(self, matrix: np.ndarray, columns: np.ndarray) -> None:
        self.matrix, self.columns = matrix, columns
        self.shape = len(matrix), len(columns)

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        taken: np.ndarray = self.matrix[rows][:, self.columns]
        return taken


Rows = np.ndarray | Columns  # a feature matrix [N, D] of any float type


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [N, D] of any float type as float32 of length one; a zero row stays zero."""
    rows = rows.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def view_mean(features: Rows, chunk: int = 65_536) -> np.ndarray:
    """Mean of the L2-normalised rows of one view: [N, D] -> [D] float32, in bounded memory."""
    total = np.zeros(features.shape[1], dtype=np.float64)
    for start in range(0, len(features), chunk):
        total += unit_rows(features[start : start + chunk]).sum(axis=0, dtype=np.float64)
    return (total / len(features)).astype(np.float32)


def row_digests(features: np.ndarray) -> np.ndarray:
    """A hash of each row [N, D] of any float type, as float16: [N] uint64; equal images have equal ones."""
    rows = (features[start : start + 1].astype(np.float16).tobytes() for start in range(len(features)))
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<u8").copy()
