"""Pairs of images scored by a cluster's actors: each lays some queries on their candidates.

A query is scored by itself, on one thread, so that neither the number of actors nor of nodes changes a bit.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util import ActorPool

from cvgl_ray import config
from cvgl_ray.alignment.aligner import Aligner, Score, Settings
from cvgl_ray.alignment.cell_learning import CellLearning
from cvgl_ray.alignment.learned import Learned, take_over
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.distributed import session
from cvgl_ray.distributed.answers import TRIES, giving_up
from cvgl_ray.distributed.cells import CellStores
from cvgl_ray.features.batches import one_thread
from cvgl_ray.features.cells import Cells

PARTS_PER_CPU = 4  # so that no CPU waits long for the last one
FEW = 50_000  # pairs times headings and widths that are done, in a second or two, before actors had started

# Maps and masks of cells as NumPy's arrays, which actors share unread; bfloat16, which it lacks, as int16.
Plain = tuple[np.ndarray, np.ndarray]


def settings_of(section: config.Alignment) -> Settings:
    """How pairs are searched, as configured."""
    quick = section.precision == "bfloat16" or (section.precision == "auto" and _multiplies_bfloat16())
    return Settings(candidates=section.candidates, dtype=torch.bfloat16 if quick else torch.float32)


def _multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for it: then it is about twice as quick."""
    try:
        return bool({"avx512_bf16", "amx_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False


def plain(cells: Cells) -> Plain:
    """Cells as arrays, for the object store."""
    maps = cells.maps.view(torch.int16) if cells.maps.dtype == torch.bfloat16 else cells.maps
    return maps.numpy(), cells.masks.numpy()


def cells_of(arrays: Plain) -> Cells:
    """Cells that look at arrays, which may be another process's too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of arrays that cannot be written, which nobody does
        maps, masks = (torch.from_numpy(array) for array in arrays)
    return Cells(maps.view(torch.bfloat16) if maps.dtype == torch.int16 else maps, masks)


class ClusterScore:
    """`score_pairs` by actors of the cluster, one per CPU and started once; dtype: of the products.

    They take no CPU from Ray's account: in a training the workers hold them, and wait meanwhile.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.pool: ActorPool | None = None

    def __call__(
        self, query: Cells, references: Sequence[Cells], prior: PosePrior, candidates: np.ndarray | None
    ) -> Found:
        """See `score_pairs`. Raises GaveUpError where an actor died several times."""
        each = len(references[0]) if candidates is None else candidates.shape[1]
        poses = int((prior.heading > -np.inf).sum() * (prior.width > -np.inf).sum())
        if len(query) * each * poses < FEW:
            with one_thread():
                return score_pairs(query, references, prior, candidates, dtype=self.dtype)
        cpus = session.cluster_cpus()
        self.pool = self.pool or ActorPool([_started(self.dtype) for _ in range(cpus)])
        tried = zip(references, prior.width > -np.inf, strict=True)  # the others are not looked at
        shared = ray.put(([plain(cells) if wanted else None for cells, wanted in tried], prior))
        size = max(1, math.ceil(len(query) / (PARTS_PER_CPU * cpus)))
        parts = [slice(first, first + size) for first in range(0, len(query), size)]
        with giving_up("the alignment"):
            found = self.pool.map(
                lambda actor, part: actor.score.remote(
                    shared, plain(query.of(part)), None if candidates is None else candidates[part]
                ),
                parts,
            )
            return Found.joined(list(found))


def _started(dtype: torch.dtype) -> Any:
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": TRIES, "max_task_retries": TRIES}
    return ray.remote(scheduling_strategy="SPREAD", **options)(_Scorer).remote(dtype)


class _Scorer:
    """Lays some queries on their candidates."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def score(
        self, shared: tuple[list[Plain | None], PosePrior], query: Plain, candidates: np.ndarray | None
    ) -> Found:
        asked, (arrays, prior) = cells_of(query), shared
        references = [asked if one is None else cells_of(one) for one in arrays]
        with one_thread():
            return score_pairs(asked, references, prior, candidates, dtype=self.dtype)


@dataclass
class Alignment:
    """What the rounds of a training align: cells in the object store, and what was learned last.

    cells: of the queries, and of the references per width, as `plain` gives them; state: None before the
    first round.
    """

    cells: ray.ObjectRef
    settings: Settings
    state: Learned | None = None

    def aligner(self, score: Score, learning: CellLearning) -> Aligner:
        """As the last round left it."""
        query, *references = (cells_of(arrays) for arrays in ray.get(self.cells))
        aligner = Aligner(query, references, self.settings, score, learning)
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
    data: AlignedData,
    query_ids: Sequence[str],
    reference_ids: Sequence[str],
    section: config.Alignment,
) -> Alignment:
    """Put the cells of a training's images into the object store, in the order of its rows."""
    query, references = data.load(query_ids, reference_ids)
    cells = ray.put([plain(query), *(plain(part) for part in references)])
    return Alignment(cells, settings_of(section))
