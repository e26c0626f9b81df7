"""Pseudo-labels -> the global batches of a round's M-steps, the same on every worker."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cvgl_ray.config import EStep
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.errors import InputError


@dataclass(frozen=True)
class Batch:
    """One step's rows over all workers.

    query_rows [Q], reference_rows [R]: global row ids; every row is a candidate for the other view.
    of_query [Q], of_reference [R]: position of the positive in the other array, -1 for a row without one.
    """

    query_rows: np.ndarray
    reference_rows: np.ndarray
    of_query: np.ndarray
    of_reference: np.ndarray


def batch_of_labels(labels: PseudoLabels) -> Batch:
    """The rows of an E-step as one batch: unlabelled rows stay in it as candidates."""
    return Batch(labels.query_rows, labels.reference_rows, labels.of_query, labels.of_reference)


def batches_of_pairs(
    labels: PseudoLabels, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """`steps` batches of at most `batch_size` labelled queries and their references, in reshuffled passes.

    A reference labelled by several queries of a batch enters it once, with one of them as its positive.
    """
    labelled = np.flatnonzero(labels.of_query >= 0)
    size = min(batch_size, len(labelled))
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < size:
            order = rng.permutation(labelled)
        queries, order = order[:size], order[size:]
        references, of_query = np.unique(labels.of_query[queries], return_inverse=True)
        of_reference = np.full(len(references), -1)
        of_reference[of_query] = np.arange(len(queries))
        yield Batch(labels.query_rows[queries], labels.reference_rows[references], of_query, of_reference)


def local_rows(rows: np.ndarray, rank: int, world: int) -> tuple[np.ndarray, np.ndarray]:
    """This worker's share of a batch's rows: (row ids [n], valid [n] bool), n equal on all workers.

    Where the batch does not divide, the last workers' shares are filled with repeated rows that do not count.
    """
    share = -(-len(rows) // world)
    positions = np.arange(rank * share, (rank + 1) * share)
    return rows[np.minimum(positions, len(rows) - 1)], positions < len(rows)


def check_batches(queries: int, references: int, estep: EStep) -> None:
    """Refuse a batch that so many images cannot fill, before anything starts."""
    fewest = min(queries, references)
    if fewest < 2:
        raise InputError(f"a view has {fewest} usable images; training needs at least two of each view")
    if estep.rows > references:
        raise InputError(
            f"estep.rows = {estep.rows}, but there are {references} references; "
            "lower it, or set 0 for an E-step over all rows"
        )
