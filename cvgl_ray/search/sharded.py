"""An index in shards: each searches its own rows, and together they find what one index would.

All rows of a view are never in one place: they come in blocks, one at a time, from wherever those lie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Exact, Found, Hubness, Search, found_by_index, merge_found, stack

BLOCK_BYTES = 2**26


class Block(NamedTuple):
    """`size` consecutive rows [size, W] float32 of a view; `handle` is what a `Fetch` knows them by."""

    handle: Any
    size: int


Fetch = Callable[[Any], np.ndarray]
Views = tuple[Sequence[Block], Sequence[Block]]  # all rows of the queries and of the references, in order


@dataclass(frozen=True)
class Ask:
    """What each of `shards` shards is asked; factory: see `views.local`, the last three: `Search`.

    k_reference 0: nothing is asked of the references.
    """

    views: Views
    shards: int
    factory: str
    k_query: int
    k_reference: int
    hubness: Hubness | None


AskEach = Callable[[Ask], Sequence[tuple[Found, Found]]]  # the answer of every shard, by `search_shard`


@dataclass(frozen=True)
class Sharded:
    """The search of rows that lie in shards; the views have at least as many blocks as there are."""

    views: Views
    shards: int
    factory: str
    ask_each: AskEach

    def nearest(self, k_query: int, k_reference: int, hubs: Hubness | None = None) -> tuple[Found, Found]:
        """See Search."""
        first_ids = [
            [_part(blocks, n, self.shards)[1].start for n in range(self.shards)] for blocks in self.views
        ]
        answers = self.ask_each(Ask(self.views, self.shards, self.factory, k_query, k_reference, hubs))
        of_queries, of_references = zip(*answers, strict=True)
        of_query = merge_found(of_queries, first_ids[REFERENCE], k_query)
        if self.factory == "Flat":
            return of_query, stack(of_references)
        return of_query, merge_found(of_references, first_ids[QUERY], k_reference)


def in_shards(views: Views, shards: int, factory: str, ask_each: AskEach) -> Search:
    """The search of rows that lie in so many shards, in fewer where a view has not as many blocks."""
    return Sharded(views, min(shards, *map(len, views)), factory, ask_each)


def search_shard(number: int, ask: Ask, fetch: Fetch, device: str = "cpu") -> tuple[Found, Found]:
    """What the shard of that number finds: for all queries among its references, and for references.

    "Flat" answers for its own references among all queries, one block of these at a time, on the device. Any
    other factory answers for all references among its own queries.
    """
    (queries, own_q), (references, own_r) = (_part(blocks, number, ask.shards) for blocks in ask.views)
    reference = assemble(references, fetch)
    if ask.factory == "Flat":
        return _exact(reference, own_r, ask, fetch, device)
    hub_q, hub_r = (None, None) if ask.hubness is None else (ask.hubness[0][own_q], ask.hubness[1][own_r])
    all_queries, all_references = ((fetch(block.handle) for block in blocks) for blocks in ask.views)
    of_query = found_by_index(all_queries, reference, hub_r, ask.k_query, ask.factory)
    if not ask.k_reference:  # nor is an index of the queries made
        count = sum(block.size for block in ask.views[REFERENCE])
        return of_query, Found(Nearest.nothing(count), np.full(count, -1, np.float32))
    return of_query, found_by_index(
        all_references, assemble(queries, fetch), hub_q, ask.k_reference, ask.factory
    )


def _exact(reference: np.ndarray, own: slice, ask: Ask, fetch: Fetch, device: str) -> tuple[Found, Found]:
    of_query, of_reference, stop = [], None, 0
    for block in ask.views[QUERY]:
        start, stop = stop, stop + block.size
        hubness = None if ask.hubness is None else (ask.hubness[0][start:stop], ask.hubness[1][own])
        whole = Exact(fetch(block.handle), reference, device)
        forth, back = whole.nearest(ask.k_query, ask.k_reference, hubness)
        of_query.append(forth)
        if of_reference is None:
            of_reference = back
        else:
            of_reference = merge_found([of_reference, back], [0, start], ask.k_reference)
    assert of_reference is not None
    return stack(of_query), of_reference


def cut(rows: np.ndarray, pieces: int) -> list[np.ndarray]:
    """Rows [n, W] in so many pieces, in more where one would exceed BLOCK_BYTES; none of them is empty."""
    edges = np.cumsum(block_sizes(len(rows), rows.shape[1], pieces))
    return np.split(rows, edges[:-1]) if len(rows) else []


def block_sizes(count: int, dims: int, pieces: int) -> list[int]:
    """So many rows of `dims` float32 each in so many blocks, in more where one would exceed BLOCK_BYTES."""
    pieces = min(max(pieces, -(-count * dims * 4 // BLOCK_BYTES)), count)
    return [count * (n + 1) // pieces - count * n // pieces for n in range(pieces)]


def assemble(blocks: Sequence[Block], fetch: Fetch) -> np.ndarray:
    """The rows [n, W] of some blocks in one array; one block at a time is fetched."""
    rows, stop = np.empty((0, 0), np.float32), 0
    for block in blocks:
        part = fetch(block.handle)
        if not stop:
            rows = np.empty((sum(block.size for block in blocks), part.shape[1]), np.float32)
        start, stop = stop, stop + block.size
        rows[start:stop] = part
    return rows


def _part(blocks: Sequence[Block], number: int, shards: int) -> tuple[Sequence[Block], slice]:
    """The blocks of a shard, and which of the view's rows they are; there are at least as many as shards."""
    first, stop = (len(blocks) * edge // shards for edge in (number, number + 1))
    row, mine = sum(block.size for block in blocks[:first]), blocks[first:stop]
    return mine, slice(row, row + sum(block.size for block in mine))
