"""The faiss index over global row ids, and the few numbers by which wide rows are looked for in it."""

import math

import faiss
import numpy as np
import torch

from cvgl_ray.errors import InputError

EXACT = 2**34  # pairs of rows up to which "auto" looks at all of them: minutes on a few cores
EXACT_PRODUCTS = 2**44  # and numbers multiplied: wide rows take longer, ten minutes on two cores
WIDE, NARROW = 512, 256  # rows of more numbers than WIDE are looked for by NARROW of them
SAMPLE = 8192  # rows that the projection is made of


def chosen(factory: str, rows: int, others: int, dims: int, device: str = "cpu") -> str:
    """The factory that "auto" stands for in a search of rows [rows, dims] among others [others, dims].

    "Flat", exact, where there are few pairs, and on a GPU; else about twice the square root of the others as
    lists, of half precision, a 48th of which are probed: recall@10 of about 0.96 at a million rows
    (experiments/LOG.md).
    """
    if factory != "auto":
        return factory
    if rows * others <= min(EXACT, EXACT_PRODUCTS / dims) or device != "cpu":
        return "Flat"
    lists = 2 ** round(math.log2(2 * math.sqrt(others)))
    return f"IVF{lists},SQfp16;nprobe={max(16, lists // 48)}"


def build_index(rows: np.ndarray, factory: str = "Flat") -> faiss.Index:
    """Index rows [N, D] float32 by inner product; a row's id is its position.

    factory: any faiss `index_factory` string; after a semicolon, search parameters by faiss's names, as in
    "IVF4096,Flat;nprobe=16". Raises InputError for one that faiss does not know or that needs more rows to
    train on than there are.
    """
    kind, _, parameters = factory.partition(";")
    try:
        index = faiss.index_factory(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
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
    scores, ids = index.search(np.ascontiguousarray(rows, dtype=np.float32), min(k, index.ntotal))
    return np.where(ids < 0, -np.inf, scores), ids


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
