"""Pairs of images scored by a cluster's actors: each lays some queries on their candidates.

A query is scored by itself, on one thread, so that neither the number of actors nor of nodes changes a bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util import ActorPool

from cvgl_ray import config
from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.cell_learning import CellLearning
from cvgl_ray.alignment.cell_source import Picked, Source, row_bytes
from cvgl_ray.alignment.halves import LaidHalves
from cvgl_ray.alignment.learned import Learned, take_over
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.alignment.scoring import Pairwise, Score, score_rows
from cvgl_ray.distributed import session
from cvgl_ray.distributed.answers import TRIES, giving_up
from cvgl_ray.distributed.cell_sources import PutCells, sources_of
from cvgl_ray.distributed.resources import alive_nodes
from cvgl_ray.features.batches import one_thread
from cvgl_ray.features.cell_stores import CellStores

SHARES = 3  # of a node's memory for cells: frozen ones, references as they are compared, blocks of actors
PARTS_PER_CPU = 4  # so that no CPU waits long for the last one
FEW = 50_000  # pairs times headings and widths that are done, in a second or two, before actors had started


def settings_of(section: config.Alignment) -> Settings:
    """How pairs are searched, as configured."""
    quick = section.precision == "bfloat16" or (section.precision == "auto" and _multiplies_bfloat16())
    dtype = torch.bfloat16 if quick else torch.float32
    return Settings(candidates=section.candidates, dtype=dtype, memory=section.memory_gib * 2**30)


def _multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for it: then it is about twice as quick."""
    try:
        return bool({"avx512_bf16", "amx_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False


class ClusterScore:
    """`score_rows` by actors of the cluster, one per CPU and started once, which read cells themselves.

    They take no CPU from Ray's account: in a training the workers hold them, and wait meanwhile.
    """

    def __init__(self, settings: Settings) -> None:
        self.dtype, self.share = settings.dtype, settings.memory / SHARES
        self.pool: ActorPool | None = None

    def __call__(
        self, query: Source, references: Source, prior: PosePrior, candidates: np.ndarray | None
    ) -> Found:
        """See `score_rows`. Raises GaveUpError where an actor died several times."""
        each = len(references) if candidates is None else candidates.shape[1]
        poses = int((prior.heading > -np.inf).sum() * (prior.width > -np.inf).sum())
        with one_thread():
            if len(query) * each * poses < FEW:
                return score_rows(
                    query, references, prior, candidates, room=self.share, score=_pairwise(self.dtype)
                )
            if len(references) * row_bytes(references) <= self.share:  # else each block reads its own
                references = PutCells.of_all(references)
        cpus, nodes = session.cluster_cpus(), max(1, sum(1 for node in alive_nodes() if node.get("CPU")))
        self.pool = self.pool or ActorPool([_started(self.dtype) for _ in range(cpus)])
        room = self.share / math.ceil(cpus / nodes)
        shared = ray.put((query, references, prior, room))
        parts = np.array_split(np.arange(len(query)), min(len(query), PARTS_PER_CPU * cpus))
        with giving_up("the alignment"):
            found = self.pool.map(
                lambda actor, part: actor.score.remote(
                    shared, part, None if candidates is None else candidates[part]
                ),
                parts,
            )
            return Found.joined(list(found))


def _pairwise(dtype: torch.dtype) -> Pairwise:
    return partial(score_pairs, dtype=dtype)


def _started(dtype: torch.dtype) -> Any:
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": TRIES, "max_task_retries": TRIES}
    return ray.remote(scheduling_strategy="SPREAD", **options)(_Scorer).remote(dtype)


class _Scorer:
    """Lays some queries on their candidates."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def score(
        self, shared: tuple[Source, Source, PosePrior, float], part: np.ndarray, candidates: np.ndarray | None
    ) -> Found:
        query, references, prior, room = shared
        with one_thread():
            asked = Picked(query, part)
            return score_rows(asked, references, prior, candidates, room=room, score=_pairwise(self.dtype))


@dataclass
class Alignment:
    """What the rounds of a training align: queries' and references' cells, and what was learned last.

    state: None before the first round; laid: what halves of the cells said in the last one, for the judge.
    """

    query: Source
    references: Source
    settings: Settings
    state: Learned | None = None
    laid: LaidHalves | None = None

    def aligner(self, score: Score, learning: CellLearning) -> Aligner:
        """As the last round left it."""
        aligner = Aligner(self.query, self.references, self.settings, score, learning)
        if self.state is not None:
            take_over(aligner, self.state)
        return aligner


@dataclass(frozen=True)
class AlignedData:
    """A data set's stored cells; directions [c, C]: what wide ones are projected on."""

    stores: CellStores
    views: tuple[str, str]  # the query's and the reference's
    directions: torch.Tensor | None

    def sources(
        self, query_ids: Sequence[str], reference_ids: Sequence[str], settings: Settings
    ) -> tuple[Source, Source]:
        """Cells of queries and of references, see `sources_of`."""
        ids = dict(zip(self.views, (query_ids, reference_ids), strict=True))
        query, references = sources_of(self.stores, ids, settings.memory)
        return query, references


def share_cells(
    data: AlignedData,
    query_ids: Sequence[str],
    reference_ids: Sequence[str],
    section: config.Alignment,
) -> Alignment:
    """What a training's rounds align, in the order of its rows."""
    settings = settings_of(section)
    return Alignment(*data.sources(query_ids, reference_ids, settings), settings)
