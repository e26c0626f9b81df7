"""All that touches the matrix of scores: the best references of a query, the ranks of its relevant ones.

The score is the inner product. The whole matrix never exists: queries come in chunks that fit a memory
budget. All of it runs on the CPU, where one matrix product a chunk takes most of the time.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cvgl_ray.errors import InputError

MEMORY_BYTES = 256 * 2**20
# Up to so many relevant references, one pass over the scores for each beats sorting (measured on 2 cores).
FEW_RELEVANT = 8


def top_k(query: Tensor, gallery: Tensor, k: int, *, memory: int = MEMORY_BYTES) -> tuple[Tensor, Tensor]:
    """The k best references of every query, best first; the order among equal scores is arbitrary.

    Args:
        query, gallery: [Q, D] and [G, D] float32, L2-normalised, on the CPU.
        k: 1 to G.
        memory: bytes that the scores of one chunk of queries may take.

    Returns:
        indices [Q, k] int64 into the gallery, and their scores [Q, k] float32.

    Raises:
        InputError: k is larger than the gallery, or the embeddings differ in width or are not finite.
    """
    check_embeddings(query, gallery)
    check_k(k, len(gallery))
    best = [
        scores.topk(k, dim=1) for _, scores in _score_chunks(query, gallery, memory // (4 * len(gallery)))
    ]
    if not best:
        return torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
    return torch.cat([chunk.indices for chunk in best]), torch.cat([chunk.values for chunk in best])


def relevant_ranks(
    query: Tensor,
    gallery: Tensor,
    query_places: np.ndarray,
    gallery_places: np.ndarray,
    *,
    memory: int = MEMORY_BYTES,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranks of each query's relevant references, by counting what scores no less: no gallery is ranked.

    A reference is relevant when its place is the query's; the place "" (no place) is relevant to nothing.
    Ties are pessimistic: a relevant reference ranks behind every irrelevant one of the same score, so that
    embeddings that are all alike score as badly as they are, whatever the order of the gallery.

    Args:
        query, gallery: [Q, D] and [G, D] float32, L2-normalised, on the CPU.
        query_places, gallery_places: [Q] and [G] place ids (str).
        memory: bytes that one chunk of queries may take.

    Yields:
        chunk by chunk, in the order of the queries: ranks [q, R] int64, 0-based, ascending, and how many of a
        row are real [q] int64; what lies beyond has no meaning. R is the largest number in the chunk.

    Raises:
        InputError: the embeddings differ in width or are not finite.
    """
    check_embeddings(query, gallery)
    assert len(query) == len(query_places)
    assert len(gallery) == len(gallery_places)
    by_place = np.argsort(gallery_places, kind="stable")
    sorted_places = gallery_places[by_place]
    first = np.searchsorted(sorted_places, query_places, side="left")
    count = np.searchsorted(sorted_places, query_places, side="right") - first
    count[query_places == ""] = 0

    row_bytes = 5 * len(gallery) + 32 * int(count.max(initial=0))  # scores, a mask of them, a few [q, R]
    for rows, scores in _score_chunks(query, gallery, memory // row_bytes):
        n = count[rows]
        position = np.arange(n.max(initial=0))
        columns = by_place[np.minimum(first[rows, None] + position, len(gallery) - 1)]
        relevant = np.take_along_axis(scores.numpy(), columns, axis=1)
        relevant = -np.sort(np.where(position < n[:, None], -relevant, np.inf), axis=1)
        no_less = _count_at_least(scores.numpy(), relevant, n)
        relevant_among_them = _count_at_least(relevant, relevant, n)
        yield no_less - relevant_among_them + position, n


def check_embeddings(query: Tensor, gallery: Tensor) -> None:
    """Raise InputError unless both are finite, of one width, and there is a gallery to search."""
    if len(gallery) == 0:
        raise InputError(
            "the gallery holds no reference, so there is nothing to search: check its root and split"
        )
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"the queries have {query.shape[1]} dimensions and the references {gallery.shape[1]}, which must "
            "be equal: embed both with one model"
        )
    for name, x in (("query", query), ("reference", gallery)):
        bad = int((~x.sum(dim=1).isfinite()).sum())  # a sum is finite only where all of it is
        if bad:
            raise InputError(
                f"{bad} of {len(x)} {name} embeddings hold NaN or infinity, which no score can rank: "
                "take a model that has not diverged"
            )


def check_k(k: int, gallery: int) -> None:
    """Raise InputError unless 1 <= k <= gallery (a number of references)."""
    if not 1 <= k <= gallery:
        raise InputError(
            f"k = {k} was asked of a gallery of {gallery} references: choose k from 1 to {gallery}"
        )


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
