"""The ranks of the references that are relevant to a query.

The score is the inner product. The whole matrix never exists: queries come in chunks that fit a memory
budget. All of it runs on the CPU, where one matrix product a chunk takes most of the time.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cvgl_ray.search.topk import check_embeddings

MEMORY_BYTES = 256 * 2**20
# Up to so many relevant references, one pass over the scores for each beats sorting (measured on 2 cores).
FEW_RELEVANT = 8


class Relevant(NamedTuple):
    """The references that are relevant to query i: rows[first[i] : first[i] + number[i]] of the gallery."""

    rows: np.ndarray  # [n] int64
    first: np.ndarray  # [Q] int64
    number: np.ndarray  # [Q] int64


def of_places(query_places: np.ndarray, gallery_places: np.ndarray) -> Relevant:
    """A reference is relevant when its place is the query's; the place "" (no place) is relevant to nothing.

    query_places, gallery_places: [Q] and [G] place ids (str).
    """
    rows = np.argsort(gallery_places, kind="stable")
    ordered = gallery_places[rows]
    first = np.searchsorted(ordered, query_places, side="left")
    count = np.searchsorted(ordered, query_places, side="right") - first
    count[query_places == ""] = 0
    return Relevant(rows, first, count)


def of_pairs(query_rows: np.ndarray, gallery_rows: np.ndarray, queries: int) -> Relevant:
    """The relevant references as pairs [n] of rows of both sides, in any order; `queries` is Q."""
    count = np.bincount(query_rows, minlength=queries)
    order = np.argsort(query_rows, kind="stable")
    return Relevant(gallery_rows[order], np.cumsum(count) - count, count)


def relevant_ranks(
    query: Tensor,
    gallery: Tensor,
    relevant: Relevant,
    spots: np.ndarray | None = None,
    *,
    memory: int = MEMORY_BYTES,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranks of each query's relevant references, by counting what scores no less: no gallery is ranked.

    Ties are pessimistic: a relevant reference ranks behind every irrelevant one of the same score, so that
    embeddings that are all alike score as badly as they are, whatever the order of the gallery.

    Args:
        query, gallery: [Q, D] and [G, D] float32, L2-normalised, on the CPU.
        relevant: each query's relevant references.
        spots: [G] of each reference, of any type that sorts; those of one spot are one reference, which
            scores as the best of them and is relevant where one of them is. None: each is its own.
        memory: bytes that one chunk of queries may take.

    Yields:
        chunk by chunk, in the order of the queries: ranks [q, R] int64, 0-based, ascending, and how many of a
        row are real [q] int64; what lies beyond has no meaning. R is the largest number in the chunk.

    Raises:
        InputError: the embeddings differ in width or are not finite.
    """
    check_embeddings(query, gallery)
    spot = None if spots is None else np.unique(spots, return_inverse=True)[1]
    by_query, first, count = relevant if spot is None else _of_spots(relevant, spot)
    assert len(query) == len(first) == len(count)

    row_bytes = 5 * len(gallery) + 32 * int(count.max(initial=0))  # scores, a mask of them, a few [q, R]
    for rows, each in _score_chunks(query, gallery, memory // row_bytes):
        scores = each if spot is None else _best_of_spots(each, spot)
        n = count[rows]
        position = np.arange(n.max(initial=0))
        columns = by_query[np.minimum(first[rows, None] + position, len(by_query) - 1)]
        found = np.take_along_axis(scores.numpy(), columns, axis=1)
        found = -np.sort(np.where(position < n[:, None], -found, np.inf), axis=1)
        no_less = _count_at_least(scores.numpy(), found, n)
        relevant_among_them = _count_at_least(found, found, n)
        yield no_less - relevant_among_them + position, n


def _of_spots(relevant: Relevant, spot: np.ndarray) -> Relevant:
    """The relevant spots of each query, each named once."""
    query = np.repeat(np.arange(len(relevant.first)), relevant.number)
    place = np.arange(len(query)) - np.repeat(np.cumsum(relevant.number) - relevant.number, relevant.number)
    rows = relevant.rows[np.repeat(relevant.first, relevant.number) + place]
    pairs = np.unique(np.stack([query, spot[rows]], axis=1), axis=0)
    return of_pairs(pairs[:, 0], pairs[:, 1], len(relevant.first))


def _best_of_spots(scores: Tensor, spot: np.ndarray) -> Tensor:
    """Scores [q, G] of references -> of spots [q, S], each the best of its references."""
    order = np.argsort(spot, kind="stable")
    starts = np.flatnonzero(np.diff(spot[order], prepend=-1))
    return torch.from_numpy(np.maximum.reduceat(scores.numpy()[:, order], starts, axis=1))


def _score_chunks(query: Tensor, gallery: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of at most `chunk` queries (at least one) and their scores [q, G], in one buffer used again."""
    query, gallery = query.detach().float(), gallery.detach().float()
    chunk = min(max(1, chunk), max(1, len(query)))
    buffer = torch.empty(chunk, len(gallery))
    for start in range(0, len(query), chunk):
        part = query[start : start + chunk]
        yield slice(start, start + len(part)), torch.mm(part, gallery.T, out=buffer[: len(part)])


def _count_at_least(scores: np.ndarray, wanted: np.ndarray, n: np.ndarray) -> np.ndarray:
    """How many of scores[i] are >= wanted[i, j]: [q, R] int64; only the first n[i] of a row have a meaning.

    scores: [q, G]; wanted: [q, R], descending; n: [q]. NumPy, because here it counts and sorts several times
    faster than torch.
    """
    counts = np.zeros(wanted.shape, np.int64)
    if wanted.shape[1] <= FEW_RELEVANT:
        for j in range(wanted.shape[1]):
            counts[:, j] = np.count_nonzero(scores >= wanted[:, j, None], axis=1)
        return counts

    def count_row(i: int) -> None:
        real = wanted[i, : n[i]]
        kept = scores[i][scores[i] >= real[-1]]  # all that matters scores no less than the worst relevant one
        kept.sort()
        counts[i, : n[i]] = len(kept) - np.searchsorted(kept, real, side="left")

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(count_row, np.flatnonzero(n)))
    return counts
