"""The faiss index over global row ids, and the few numbers by which wide rows are looked for in it."""

import math
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import torch
from faiss.contrib.inspect_tools import get_invlist

from cvgl_ray.errors import InputError

EXACT = 2**34  # pairs of rows up to which "auto" looks at all of them: minutes on a few cores
EXACT_PRODUCTS = 2**44  # and numbers multiplied: wide rows take longer, ten minutes on two cores
WIDE, NARROW = 512, 256  # rows of more numbers than WIDE are looked for by NARROW of them
SAMPLE = 8192  # rows that the projection is made of
CLUSTERING_ROUNDS, PER_LIST = 6, 64  # of the lists' k-means, and rows per list in its sample
PROBING = 2**22  # rows that are looked for at a time: faiss counts their probes in 32 bits
AT_ONCE = 64  # rows that ask of one list, on average, from which on all of them are multiplied at once


def chosen(factory: str, rows: int, others: int, dims: int, device: str = "cpu") -> str:
    """The factory that "auto" stands for in a search of rows [rows, dims] among others [others, dims].

    "Flat", exact, where there are few pairs, and on a GPU; else about twice the square root of the others as
    lists, a 128th of which are probed, at least 16: recall@32 of 0.90 at a million rows (experiments/LOG.md).
    """
    if factory != "auto":
        return factory
    if rows * others <= min(EXACT, EXACT_PRODUCTS / dims) or device != "cpu":
        return "Flat"
    lists = 2 ** round(math.log2(2 * math.sqrt(others)))
    return f"IVF{lists},Flat;nprobe={max(16, lists // 128)}"


def build_index(rows: np.ndarray, factory: str = "Flat") -> faiss.Index:
    """Index rows [N, D] float32 by inner product; a row's id is its position.

    factory: any faiss `index_factory` string; after a semicolon, search parameters by faiss's names, as in
    "IVF4096,Flat;nprobe=16". Its lists are made of a sample. Raises InputError for one that faiss does not
    know or that needs more rows to train on than there are.
    """
    kind, _, parameters = factory.partition(";")
    try:
        index = faiss.index_factory(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
        if isinstance(index, faiss.IndexIVF):
            index.cp.niter, index.cp.max_points_per_centroid = CLUSTERING_ROUNDS, PER_LIST
        if not index.is_trained:
            index.train(rows)
        index.add(np.ascontiguousarray(rows))
    except RuntimeError as error:
        reason = str(error).split(": ")[-1].strip()  # after faiss's own source location and condition
        raise InputError(
            f"estep.index {factory!r} does not fit {len(rows)} rows of {rows.shape[1]} numbers ({reason}); "
            'use "Flat" or another faiss index_factory string'
        ) from error
    return index


def search(index: faiss.Index, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the index for rows [n, D]: (scores [n, k] float32 falling, ids [n, k] int64).

    k is cut to the index's size; an approximate index may pad a row's tail with id -1 and score -inf.
    """
    rows, k = np.ascontiguousarray(rows, dtype=np.float32), min(k, index.ntotal)
    if _worth_lists(index, len(rows)):
        parts = np.array_split(rows, -(-len(rows) // PROBING))
        found = [_list_by_list(index, part, k) for part in parts]
        scores, ids = (np.concatenate(side) for side in zip(*found, strict=True))
    else:
        scores, ids = index.search(rows, k)
    return np.where(ids < 0, np.float32(-np.inf), scores), ids


def _worth_lists(index: faiss.Index, count: int) -> bool:
    """Whether so many rows are looked for in one list after the other."""
    if type(index) is not faiss.IndexIVFFlat:  # a subclass keeps its rows otherwise
        return False
    return bool(count * index.nprobe >= AT_ONCE * index.nlist)


def _list_by_list(index: Any, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What `index.search` finds, in a third of its time: a list meets all rows that probe it in one product.

    As faiss's own `contrib.big_batch_search`, which prints a line per list.
    """
    probed = index.quantizer.search(rows, index.nprobe)[1].astype(np.int32)
    if (probed < 0).any():  # no list to sort by: of NaN, or of more probes than lists
        return index.search(rows, k)
    limits = faiss.matrix_bucket_sort_inplace(probed, nbucket=index.nlist)
    asking, best = probed.ravel(), faiss.ResultHeap(len(rows), k, keep_max=True)  # sorted by list
    for number, (start, stop) in enumerate(pairwise(limits)):
        ids, codes = get_invlist(index.invlists, number)
        if start == stop or not len(ids):
            continue
        own = asking[start:stop].astype(np.int64)
        found = faiss.knn(rows[own], codes.view(np.float32), min(k, len(ids)), faiss.METRIC_INNER_PRODUCT)
        best.add_result_subset(own, found[0], ids[found[1]])
    best.finalize()
    return best.D, best.I


def projection(rows: np.ndarray) -> np.ndarray | None:
    """The directions [D, NARROW] along which rows [N, D] float32 differ most; None where D <= WIDE.

    The first right singular vectors of a sample, about the origin: inner products are what they keep.
    """
    if rows.shape[1] <= WIDE:
        return None
    some = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, directions = torch.svd_lowrank(torch.from_numpy(rows[some]), q=min(NARROW, len(some)), niter=2)
    found: np.ndarray = directions.numpy()
    return found


def scored_again(rows: np.ndarray, others: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Inner products [n, k] float32 of rows [n, D] with those others [m, D]; -inf where an id is -1."""
    rows, others = (np.ascontiguousarray(side, np.float32) for side in (rows, others))
    ids = np.ascontiguousarray(ids, np.int64)
    scores = np.empty(ids.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, rows, others, ids)]
    faiss.fvec_inner_products_by_idx(*pointers, rows.shape[1], *ids.shape)  # type: ignore[attr-defined]
    return np.where(ids < 0, np.float32(-np.inf), scores)
