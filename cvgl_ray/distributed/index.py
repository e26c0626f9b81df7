"""The central index: it knows where the rows of all workers lie, lets them search, and answers pseudo-labels.

Each worker is a shard: it searches its own share of the references for all queries, on its own device (see
`asking`). The actor merges what they find, [n, k], and matches; it never holds a row, but where images are
aligned.
"""

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import ray

from cvgl_ray.alignment.cell_learning import cell_learning
from cvgl_ray.alignment.halves import LaidHalves, laid_halves
from cvgl_ray.alignment.learned import Learned, learned_of
from cvgl_ray.alignment.matching import alignment_matcher
from cvgl_ray.config import Learning
from cvgl_ray.distributed.align import Alignment, ClusterScore
from cvgl_ray.distributed.exchange import Answer, Exchange, LeftError
from cvgl_ray.distributed.resources import place, use_threads
from cvgl_ray.em.graphs import Graph, Graphs, linked
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.rounds import EStepRows, RoundRows, match_by
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.approximate import chosen
from cvgl_ray.search.sharded import AskEach, Block, Views, assemble, block_sizes, in_shards
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Search

RESTARTS = 10  # of the actor in the life of a training, whose nodes may come and go
WAITING = 64  # threads of the actor beyond one per worker, for those that still wait in an earlier match


class Frozen(NamedTuple):
    """Consecutive rows of a view's frozen features, which every worker has at hand."""

    view: int
    start: int
    stop: int


@dataclass(frozen=True)
class Share(RoundRows):
    """One worker's share of a round's embeddings, in the object store; dims: of the embeddings."""

    query: Sequence[Block]
    reference: Sequence[Block]
    dims: int


@dataclass(frozen=True)
class Matched:
    """A round's pseudo-labels; of aligned images what was learned, and what halves of it say to the judge."""

    labels: PseudoLabels
    learned: Learned | None = None
    laid: LaidHalves | None = None


class IndexActor:
    """Knows where one round's embeddings of all workers lie, and matches by what the workers find in them.

    Its methods run in threads: `match` waits for the workers, who wait in `next` for what it asks.
    Restarted after a crash it knows nothing and says so, and the workers hand it their rows again. It is made
    without object references for the same reason: Ray cannot promise those to a restarted actor.
    """

    def __init__(self, learning: Learning, dims: int, threads: int) -> None:
        self.learning, self.dims, self.threads = learning, dims, threads
        self.exchange = Exchange()
        self.graphs: Graphs | None = None  # of the frozen features
        self.score: ClusterScore | None = None  # where images are aligned
        self.round = -1
        self.shares: dict[int, Share] = {}  # by rank, of the match that is to be opened
        self.opened: tuple[str, list[Share]] = "", []  # the last match, and what it is about
        self.adding, self.matching = threading.Lock(), threading.Lock()

    def begin(self) -> None:
        """A worker has started; see `rounds_done`."""
        self.round = max(self.round, 0)

    def add(self, number: int, rank: int, share: Share) -> None:
        """Take one worker's share of a round; a new round's first share forgets the last round."""
        with self.adding:
            if number != self.round:
                self.round, self.shares = number, {}
            self.shares[rank] = share

    def open(self, number: int, workers: int) -> str:
        """Begin the match of a round and name it; "" where a restart has lost some worker's share.

        Of more workers, who were there before some were lost, nothing is taken.
        """
        with self.adding:
            if number != self.round or any(rank not in self.shares for rank in range(workers)):
                return ""
            self.opened = uuid.uuid4().hex, [self.shares[rank] for rank in range(workers)]
            self.shares = {}
        self.exchange.begin(self.opened[0])
        return self.opened[0]

    def next(self, match: str, shard: int, heard: int, answer: Answer | None) -> tuple[int, Any] | None:
        """See Exchange."""
        return self.exchange.next(match, shard, heard, answer)

    def end(self, match: str) -> None:
        """See Exchange."""
        self.exchange.end(match)

    def match(self, name: str, alignment: Alignment | None = None) -> Matched:
        """Pseudo-labels of the round whose match was opened under this name.

        alignment: what images are laid on each other by, besides their embeddings, as the last round left it.
        """
        use_threads(self.threads)  # of this thread
        with self.matching:  # one at a time: an earlier one may still align, though its workers are gone
            opened, shares = self.opened
            if opened != name:
                raise LeftError
            try:
                return self._matched(shares, partial(self.exchange.ask_each, name), alignment)
            finally:
                self.exchange.end(name)  # the workers need wait no longer
                if self.opened[0] == name:  # the object store is rid of the rows during the M-step
                    self.opened = "", []

    def _matched(self, shares: Sequence[Share], ask_each: AskEach, alignment: Alignment | None) -> Matched:
        estep, first = self.learning.estep, shares[0]
        if estep.neighbourhood and self.graphs is None:
            self.graphs = (
                self._graph(QUERY, len(first.query_rows), len(shares), ask_each),
                self._graph(REFERENCE, len(first.reference_rows), len(shares), ask_each),
            )
        views = (
            [block for share in shares for block in share.query],
            [block for share in shares for block in share.reference],
        )
        if alignment is None:
            search = self._search(views, len(shares), first.dims, ask_each)
            return Matched(match_by(search, first, estep, self.graphs))
        self.score = self.score or ClusterScore(alignment.settings)
        learning = self.learning
        cells = cell_learning(learning.adapter.kind, learning.mstep, learning.loss, learning.seed)
        aligner = alignment.aligner(self.score, cells)
        query, reference = (assemble(blocks, ray.get) for blocks in views)
        whole = EStepRows(
            first.query_rows, first.reference_rows, query=query, reference=reference, share=first.share
        )
        labels = alignment_matcher(aligner, estep, self.graphs)(self.round, whole)
        laid = laid_halves(aligner, estep.neighbours, learning.seed) if learning.agreement else None
        aligner.level()
        return Matched(labels, learned_of(aligner), laid)

    def _graph(self, view: int, count: int, workers: int, ask_each: AskEach) -> Graph:
        """Who is near whom in the frozen features of a view."""
        blocks, start = [], 0
        for size in block_sizes(count, self.dims, workers):
            blocks.append(Block(Frozen(view, start, start + size), size))
            start += size

        def nearest(k: int) -> Nearest:
            return self._search((blocks, blocks), workers, self.dims, ask_each).nearest(k, 0)[0].near

        return linked(count, nearest)

    def _search(self, views: Views, workers: int, dims: int, ask_each: AskEach) -> Search:
        queries, references = (sum(block.size for block in blocks) for blocks in views)
        learning, of_shard = self.learning, -(-references // workers)
        factory = chosen(learning.estep.index, queries, of_shard, dims, learning.device)
        return in_shards(views, workers, factory, ask_each)

    def rounds_done(self) -> int:
        """How many rounds are over, those before the one whose embeddings came last; -1 before any worker."""
        return self.round


def start_index(learning: Learning, dims: int, workers: int, memory: int, threads: int) -> Any:
    """Start the actor, which restarts when its process dies.

    dims: of the frozen features; workers: how many there may be; memory: bytes of what it holds at a time;
    threads: 0 for those of its node.
    """
    options = {"max_concurrency": workers + WAITING, **place(memory)}
    remote = ray.remote(max_restarts=RESTARTS, max_task_retries=-1, **options)(IndexActor)
    actor: Any = remote.remote(learning, dims, threads)
    return actor
