"""The central index: it knows where the rows of all workers lie, lets them search, and answers pseudo-labels.

Each worker is a shard: it searches its own share of the references for all queries, on its own device. The
actor merges what they find, [n, k], and matches; it never holds a row, but where images are aligned.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import ray
import torch.distributed as dist
from ray.exceptions import RayActorError

from cvgl_ray.alignment.cell_learning import cell_learning
from cvgl_ray.alignment.learned import Learned, learned_of
from cvgl_ray.alignment.matching import alignment_matcher
from cvgl_ray.config import Learning
from cvgl_ray.distributed.align import Alignment, ClusterScore
from cvgl_ray.distributed.exchange import Answer, Exchange
from cvgl_ray.distributed.resources import place, use_threads
from cvgl_ray.em import collective
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.neighbourhood import Graphs, linked
from cvgl_ray.em.rounds import EStepRows, Matcher, RoundRows, match_by
from cvgl_ray.errors import GaveUpError
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.approximate import chosen
from cvgl_ray.search.sharded import (
    AskEach,
    Block,
    Views,
    assemble,
    block_sizes,
    cut,
    in_shards,
    search_shard,
)
from cvgl_ray.search.topk import Nearest
from cvgl_ray.search.views import Search

log = logging.getLogger(__name__)

TRIES = 3  # of one round's matching
RESTARTS = 10  # of the actor in the life of a training, whose nodes may come and go
WAITING = 64  # threads of the actor beyond one per worker, for those that still wait in an earlier match

Rows = Callable[[int, slice], np.ndarray]  # view, which rows -> frozen features, normalised [n, D] float32


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
    """A round's pseudo-labels, and where images are aligned what that has learned of them."""

    labels: PseudoLabels
    learned: Learned | None = None


@dataclass(frozen=True)
class Died:
    """What a worker hears instead of pseudo-labels where the actor's process died over them."""

    reason: str


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
        self.shares: dict[int, Share] = {}

    def begin(self) -> None:
        """A worker has started; see `rounds_done`."""
        self.round = max(self.round, 0)

    def add(self, number: int, rank: int, share: Share) -> None:
        """Take one worker's share of a round; a new round's first share forgets the last round."""
        if number != self.round:
            self.round, self.shares = number, {}
        self.shares[rank] = share

    def open(self, number: int, workers: int) -> str:
        """Begin the match of a round and name it; "" where a restart has lost some worker's share."""
        if number != self.round or len(self.shares) < workers:
            return ""
        name = uuid.uuid4().hex
        self.exchange.begin(name)
        return name

    def next(self, match: str, shard: int, heard: int, answer: Answer | None) -> tuple[int, Any] | None:
        """See Exchange."""
        return self.exchange.next(match, shard, heard, answer)

    def match(self, name: str, alignment: Alignment | None = None) -> Matched:
        """Pseudo-labels of the round whose match was opened under this name.

        alignment: what images are laid on each other by, besides their embeddings, as the last round left it.
        """
        use_threads(self.threads)  # of this thread
        shares = [self.shares[rank] for rank in range(len(self.shares))]
        try:
            matched = self._matched(shares, partial(self.exchange.ask_each, name), alignment)
        finally:
            if self.exchange.match == name:
                self.exchange.begin("")  # the workers need wait no longer
        self.shares = {}  # the object store is rid of them during the M-step
        return matched

    def _matched(self, shares: Sequence[Share], ask_each: AskEach, alignment: Alignment | None) -> Matched:
        estep, first = self.learning.estep, shares[0]
        if estep.neighbourhood and self.graphs is None:
            counts = len(first.query_rows), len(first.reference_rows)
            self.graphs = self._graph(QUERY, counts, ask_each), self._graph(REFERENCE, counts, ask_each)
        views = (
            [block for share in shares for block in share.query],
            [block for share in shares for block in share.reference],
        )
        if alignment is None:
            search = self._search(views, len(shares), first.dims, ask_each)
            return Matched(match_by(search, first, estep, self.graphs))
        self.score = self.score or ClusterScore(alignment.settings.dtype)
        learning = self.learning
        cells = cell_learning(learning.adapter.kind, learning.mstep, learning.loss, learning.seed)
        aligner = alignment.aligner(self.score, cells)
        query, reference = (assemble(blocks, ray.get) for blocks in views)
        whole = EStepRows(
            first.query_rows, first.reference_rows, query=query, reference=reference, share=first.share
        )
        labels = alignment_matcher(aligner, estep, self.graphs)(self.round, whole)
        aligner.level()
        return Matched(labels, learned_of(aligner))

    def _graph(self, view: int, counts: tuple[int, int], ask_each: AskEach) -> Any:
        """Who is near whom in the frozen features of a view."""
        count, workers, blocks, start = counts[view], len(self.shares), [], 0
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


def index_matcher(actor: Any, frozen: Rows, device: str, alignment: Alignment | None = None) -> Matcher:
    """A matcher that asks the actor and searches for it; all workers call it once per round.

    frozen: this worker's frozen features; device: where it searches; alignment: see `IndexActor.match`; each
    round leaves in it what was learned.
    """

    def fetch(handle: Any) -> np.ndarray:
        if isinstance(handle, Frozen):
            return frozen(handle.view, slice(handle.start, handle.stop))
        rows: np.ndarray = ray.get(handle)
        return rows

    def matcher(number: int, rows: EStepRows) -> PseudoLabels:
        query, reference = _stored(rows.query), _stored(rows.reference)
        dims = rows.query.shape[1]
        share = Share(rows.query_rows, rows.reference_rows, query, reference, dims, share=rows.share)
        reason = "its process was restarted"
        for _ in range(TRIES):
            answer = _ask(actor, number, share, alignment, partial(search_shard, fetch=fetch, device=device))
            if isinstance(answer, Matched):
                if alignment is not None:
                    alignment.state = answer.learned
                return answer.labels
            reason = answer.reason if answer else reason
        raise GaveUpError(
            f"the index gave up round {number} after {TRIES} tries: {reason}; the usual cause is too little "
            "memory, and a larger node, or workers on more nodes, help"
        )

    return matcher


def _ask(
    actor: Any,
    number: int,
    share: Share,
    alignment: Alignment | None,
    search: Callable[[int, Any], Answer],
) -> Matched | Died | None:
    """Hand over this worker's share, search what it is asked and hear the answer, the same on all workers.

    Rank 0 alone opens the match and asks for it, so that they agree even if the actor dies in between.
    """
    try:
        ray.get(actor.add.remote(number, collective.rank(), share))
    except RayActorError as error:  # it has no restart left
        raise GaveUpError(f"the index died {RESTARTS + 1} times: {first_line(error)}") from error
    if collective.world_size() > 1:
        dist.barrier()
    answer: Matched | Died | None = None
    once = {"max_task_retries": 0}
    match, matching = "", None
    if collective.rank() == 0:
        try:
            match = ray.get(actor.open.options(**once).remote(number, collective.world_size()))
            matching = actor.match.options(**once).remote(match, alignment) if match else None
        except RayActorError as error:
            answer = Died(first_line(error))
    match = collective.from_rank_zero(match)
    if match:
        _serve(actor.next.options(**once), match, search)
    if matching is not None:
        try:
            answer = ray.get(matching)
        except RayActorError as error:
            answer = Died(first_line(error))
    heard: Any = collective.from_rank_zero(answer)
    assert heard is None or isinstance(heard, Matched | Died)
    return heard


def _serve(ask_next: Any, match: str, search: Callable[[int, Any], Answer]) -> None:
    """Search what the match asks of this worker, until it is over or the actor's process has died."""
    heard, answer, shard = 0, None, collective.rank()
    while True:
        try:
            asked = ray.get(ask_next.remote(match, shard, heard, answer))
        except RayActorError:
            return
        if asked is None:
            return
        heard, ask = asked
        answer = search(shard, ask)


def first_line(error: RayActorError) -> str:
    """Ray's sentence about a dead actor, and the system's reason where it gives one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return " ".join(dict.fromkeys([*lines[:1], *reasons[:1]]))


def _stored(rows: np.ndarray) -> list[Block]:
    """Put rows into the object store."""
    return [Block(ray.put(part), len(part)) for part in cut(rows, 1)]
