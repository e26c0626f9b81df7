"""The central index: workers hand it their embeddings, it answers the pseudo-labels of all rows.

It matches by itself or, for collections that one machine's memory does not take, by shards on several nodes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError

from cvgl_ray.alignment.learned import Learned, learned_of
from cvgl_ray.alignment.matching import alignment_matcher
from cvgl_ray.config import Learning
from cvgl_ray.distributed.align import Alignment, ClusterScore
from cvgl_ray.distributed.resources import place, use_threads
from cvgl_ray.distributed.shards import RESTARTS, TRIES, asking, first_line, start_shards
from cvgl_ray.em import collective
from cvgl_ray.em.build import build_adapter
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.neighbourhood import Graphs
from cvgl_ray.em.rounds import EStepRows, Matcher, RoundRows, frozen_graphs, match_by, match_rows
from cvgl_ray.errors import GaveUpError
from cvgl_ray.search.approximate import chosen
from cvgl_ray.search.sharded import Block, assemble, cut, in_shards

log = logging.getLogger(__name__)

Features = tuple[ray.ObjectRef, ray.ObjectRef]  # of the query and the reference view, in the object store


@dataclass(frozen=True)
class Share(RoundRows):
    """One worker's share of a round's embeddings, in the object store."""

    query: Sequence[Block]
    reference: Sequence[Block]


@dataclass(frozen=True)
class Matched:
    """A round's pseudo-labels, and where images are aligned what that has learned of them."""

    labels: PseudoLabels
    learned: Learned | None = None


@dataclass(frozen=True)
class Died:
    """What a worker hears instead of pseudo-labels where the actor's process died over them."""

    reason: str


class IndexActor:
    """Knows where one round's embeddings of all workers lie, and matches over them: itself or by its shards.

    Restarted after a crash it knows nothing and says so, and the workers hand it their rows again. It is made
    without object references for the same reason: Ray cannot promise those to a restarted actor.
    """

    def __init__(self, learning: Learning, centre: np.ndarray, threads: int) -> None:
        self.learning, self.centre = learning, centre
        use_threads(threads)
        self.shards: list[Any] = []
        self.graphs: Graphs | None = None
        self.score: ClusterScore | None = None  # where images are aligned
        self.round = -1
        self.shares: dict[int, Share] = {}

    def prepare(self, features: Features) -> None:
        """Build the graphs of the frozen features, where the policy asks for them and they are not there."""
        if self.learning.estep.neighbourhood and self.graphs is None:
            query, reference = ray.get(list(features))
            section, centre = self.learning.adapter, torch.from_numpy(self.centre.copy())
            adapter = build_adapter(section, query.shape[1], centre, seed=self.learning.seed)
            self.graphs = frozen_graphs(query, reference, adapter, self.learning.estep.index)

    def begin(self) -> None:
        """A worker has started; see `rounds_done`."""
        self.round = max(self.round, 0)

    def add(self, number: int, rank: int, share: Share) -> None:
        """Take one worker's share of a round; a new round's first share forgets the last round."""
        if number != self.round:
            self.round, self.shares = number, {}
        self.shares[rank] = share

    def match(
        self, number: int, workers: int, features: Features, alignment: Alignment | None = None
    ) -> Matched | None:
        """Pseudo-labels of the round, or None where a restart has lost some worker's share.

        alignment: what images are laid on each other by, besides their embeddings, as the last round left it.
        """
        if number != self.round or len(self.shares) < workers:
            return None
        self.prepare(features)
        ordered, estep = [self.shares[rank] for rank in range(workers)], self.learning.estep
        views = (
            [block for share in ordered for block in share.query],
            [block for share in ordered for block in share.reference],
        )
        learned = None
        if estep.shards > 1:  # nothing is aligned then
            # Not before the first round: the workers' nodes may come up with the workers.
            size = sum(block.size for blocks in views for block in blocks) * self.centre.shape[1] * 4
            self.shards = self.shards or start_shards(estep.shards, size // estep.shards)
            queries, references = (sum(block.size for block in blocks) for blocks in views)
            of_shard, dims = -(-references // len(self.shards)), self.centre.shape[1]
            factory = chosen(estep.index, queries, of_shard, dims)
            search = in_shards(views, len(self.shards), factory, asking(self.shards))
            labels = match_by(search, ordered[0], estep, self.graphs)
        else:
            query, reference = (assemble(blocks, ray.get) for blocks in views)
            if alignment is None:
                labels = match_rows(query, reference, ordered[0], estep, self.graphs)
            else:
                labels, learned = self._aligned(number, ordered[0], query, reference, alignment)
        self.shares = {}  # the object store is rid of them during the M-step
        log.debug(
            "round %d: %d queries matched over the shares of %d workers",
            number,
            len(labels.of_query),
            workers,
        )
        return Matched(labels, learned)

    def _aligned(
        self, number: int, rows: Share, query: np.ndarray, reference: np.ndarray, alignment: Alignment
    ) -> tuple[PseudoLabels, Learned]:
        self.score = self.score or ClusterScore(alignment.settings.dtype)
        aligner = alignment.aligner(self.score)
        match = alignment_matcher(aligner, self.learning.estep, self.graphs)
        whole = EStepRows(
            rows.query_rows, rows.reference_rows, query=query, reference=reference, share=rows.share
        )
        labels = match(number, whole)
        aligner.level()
        return labels, learned_of(aligner)

    def rounds_done(self) -> int:
        """How many rounds are over, those before the one whose embeddings came last; -1 before any worker."""
        return self.round


def start_index(learning: Learning, features: Features, centre: np.ndarray, memory: int, threads: int) -> Any:
    """Start the actor, which restarts when its process dies.

    centre [2, D]: the views' means; memory: bytes of all embeddings; threads: 0 for those of its node.
    """
    where = place(memory if learning.estep.shards == 1 else 0)
    remote = ray.remote(max_restarts=RESTARTS, max_task_retries=-1, **where)(IndexActor)
    actor: Any = remote.remote(learning, centre, threads)
    # While the workers start; where it dies of this, the first round's matching will say so.
    actor.prepare.options(max_task_retries=0).remote(features)
    return actor


def index_matcher(actor: Any, features: Features, shards: int, alignment: Alignment | None = None) -> Matcher:
    """A matcher that asks the actor; every worker of the training must call it once a round.

    alignment: see `IndexActor.match`; each round leaves in it what was learned.
    """

    def matcher(number: int, rows: EStepRows) -> PseudoLabels:
        share = Share(
            rows.query_rows,
            rows.reference_rows,
            _stored(rows.query, shards),
            _stored(rows.reference, shards),
            share=rows.share,
        )
        reason = "its process was restarted"
        for _ in range(TRIES):
            answer = _ask(actor, number, share, features, alignment)
            if isinstance(answer, Matched):
                if alignment is not None:
                    alignment.state = answer.learned
                return answer.labels
            reason = answer.reason if answer else reason
        raise GaveUpError(
            f"the index gave up round {number} after {TRIES} tries: {reason}; the usual cause is too little "
            "memory, and a larger node or estep.shards > 1 helps"
        )

    return matcher


def _ask(
    actor: Any, number: int, share: Share, features: Features, alignment: Alignment | None
) -> Matched | Died | None:
    """Hand over this worker's share and hear the answer, the same on all workers.

    Rank 0 alone asks, so that they agree even if the actor dies in between.
    """
    answer: Matched | Died | None = None
    try:
        ray.get(actor.add.remote(number, collective.rank(), share))
    except RayActorError as error:  # it has no restart left
        raise GaveUpError(f"the index died {RESTARTS + 1} times: {first_line(error)}") from error
    _barrier()
    if collective.rank() == 0:
        match = actor.match.options(max_task_retries=0)
        try:
            answer = ray.get(match.remote(number, collective.world_size(), features, alignment))
        except RayActorError as error:
            answer = Died(first_line(error))
    return _from_rank_zero(answer)


def _stored(rows: np.ndarray, shards: int) -> list[Block]:
    """Put rows into the object store, in at least a block for each shard."""
    return [Block(ray.put(part), len(part)) for part in cut(rows, shards)]


def _barrier() -> None:
    if collective.world_size() > 1:
        dist.barrier()


def _from_rank_zero(value: Matched | Died | None) -> Matched | Died | None:
    """Rank 0's value on every rank."""
    if collective.world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
