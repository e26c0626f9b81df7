"""Pairs of images scored by a cluster's tasks: each lays some queries on their candidates.

A query is scored by itself, on one thread, so that neither the number of tasks nor of nodes changes a bit.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import ray
import torch

from cvgl_ray.alignment.aligner import Aligner, Score, Settings
from cvgl_ray.alignment.learned import Learned, take_over
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.config import Config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.answers import TRIES, answers
from cvgl_ray.distributed.cells import CellStores
from cvgl_ray.distributed.resources import Need
from cvgl_ray.features.cells import Cells

PARTS_PER_CPU = 4  # so that no CPU waits long for the last one
NEED = Need("the alignment", 1, {"CPU": 1.0})

Plain = tuple[np.ndarray, np.ndarray]  # maps and masks of cells as NumPy's arrays, which tasks share unread


def cluster_score() -> Score:
    """`score_pairs` by tasks of the cluster, wherever it has CPUs.

    They take no CPU from Ray's account: in a training the workers hold them, and wait meanwhile.
    """
    return _score


def plain(cells: Cells) -> Plain:
    """Cells as arrays, for the object store."""
    return cells.maps.numpy(), cells.masks.numpy()


def cells_of(arrays: Plain) -> Cells:
    """Cells that look at arrays, which may be another process's too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of arrays that cannot be written, which nobody does
        return Cells(*(torch.from_numpy(array) for array in arrays))


def _score(
    query: Cells, references: Sequence[Cells], prior: PosePrior, candidates: np.ndarray | None
) -> Found:
    cpus = session.cluster_cpus()
    tried = [width > -np.inf for width in prior.width]  # the others are not looked at
    shared = ray.put(
        ([plain(cells) if wanted else None for cells, wanted in zip(references, tried, strict=True)], prior)
    )
    task = ray.remote(num_cpus=0, max_retries=TRIES, scheduling_strategy="SPREAD")(_score_some)
    size = max(1, math.ceil(len(query) / (PARTS_PER_CPU * max(1, cpus))))
    calls = [
        partial(
            task.remote,
            shared,
            plain(query.of(slice(first, first + size))),
            None if candidates is None else candidates[first : first + size],
        )
        for first in range(0, len(query), size)
    ]
    found: list[Found] = list(answers(calls, "the alignment", NEED, ahead=1))
    return Found.joined(found)


def _score_some(
    shared: tuple[list[Plain | None], PosePrior], query: Plain, candidates: np.ndarray | None
) -> Found:
    torch.set_num_threads(1)
    asked, (arrays, prior) = cells_of(query), shared
    references = [asked if one is None else cells_of(one) for one in arrays]
    return score_pairs(asked, references, prior, candidates)


@dataclass
class Alignment:
    """What the rounds of a training align: cells in the object store, and what was learned last.

    cells: of the queries, and of the references per width, as `plain` gives them; state: None before the
    first round.
    """

    cells: ray.ObjectRef
    settings: Settings
    state: Learned | None = None

    def aligner(self) -> Aligner:
        """As the last round left it."""
        query, *references = (cells_of(arrays) for arrays in ray.get(self.cells))
        aligner = Aligner(query, references, self.settings, cluster_score())
        if self.state is not None:
            take_over(aligner, self.state)
        return aligner


@dataclass(frozen=True)
class AlignedData:
    """A data set's stored cells; directions [c, C]: what wide ones are projected on."""

    stores: CellStores
    views: tuple[str, str]  # the query's and the reference's
    directions: torch.Tensor | None

    def load(self, query_ids: Sequence[str], reference_ids: Sequence[str]) -> tuple[Cells, list[Cells]]:
        """Cells of queries, and of references per width."""
        [query], references = (
            self.stores.load(view, ids)
            for view, ids in zip(self.views, (query_ids, reference_ids), strict=True)
        )
        return query, references


def share_cells(
    data: AlignedData, query_ids: Sequence[str], reference_ids: Sequence[str], config: Config
) -> Alignment:
    """Put the cells of a training's images into the object store, in the order of its rows."""
    query, references = data.load(query_ids, reference_ids)
    cells = ray.put([plain(query), *(plain(part) for part in references)])
    return Alignment(cells, Settings(candidates=config.alignment.candidates))
