"""The central actor: workers hand it their embeddings, it answers the pseudo-labels of all rows."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import ray
import torch
import torch.distributed as dist

from cvgl_ray.config import Config
from cvgl_ray.distributed.index_shard import asking, start_shards
from cvgl_ray.em import collective
from cvgl_ray.em.build import build_adapter
from cvgl_ray.em.loop import EStepRows, Matcher, RoundRows, frozen_graphs, match_by, match_rows
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.neighbourhood import Graphs
from cvgl_ray.progress import is_shown, progress
from cvgl_ray.search.shards import Block, assemble, cut, in_shards

POLL_S = 0.25

Features = tuple[ray.ObjectRef, ray.ObjectRef]  # of the query and the reference view, in the object store


@dataclass(frozen=True)
class Share(RoundRows):
    """One worker's share of a round's embeddings, in the object store."""

    query: Sequence[Block]
    reference: Sequence[Block]


class IndexActor:
    """Knows where one round's embeddings of all workers lie, and matches over them: itself or by its shards.

    Restarted after a crash it knows nothing and says so, and the workers hand it their rows again. It is made
    without object references for the same reason: Ray cannot promise those to a restarted actor.
    """

    def __init__(self, config: Config, centre: np.ndarray, threads: int) -> None:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        self.config, self.centre, self.threads = config, centre, threads
        self.shards: list[Any] = []
        self.graphs: Graphs | None = None
        self.round = -1
        self.shares: dict[int, Share] = {}

    def prepare(self, features: Features) -> None:
        """Build the graphs of the frozen features, where the policy asks for them and they are not there."""
        if self.config.estep.neighbourhood and self.graphs is None:
            query, reference = ray.get(list(features))
            adapter = build_adapter(self.config, query.shape[1], torch.from_numpy(self.centre.copy()))
            self.graphs = frozen_graphs(query, reference, adapter)

    def add(self, number: int, rank: int, share: Share) -> None:
        """Take one worker's share of a round; a new round's first share forgets the last round."""
        if number != self.round:
            self.round, self.shares = number, {}
        self.shares[rank] = share

    def match(self, number: int, workers: int, features: Features) -> PseudoLabels | None:
        """Pseudo-labels of the round, or None where a restart has lost some worker's share."""
        if number != self.round or len(self.shares) < workers:
            return None
        self.prepare(features)
        ordered, estep = [self.shares[rank] for rank in range(workers)], self.config.estep
        views = (
            [block for share in ordered for block in share.query],
            [block for share in ordered for block in share.reference],
        )
        if estep.shards > 1:
            # Not before the first round: the workers' nodes may come up with the workers.
            self.shards = self.shards or start_shards(estep.shards, threads=self.threads)
            search = in_shards(views, len(self.shards), estep.index, asking(self.shards))
            labels = match_by(search, ordered[0], estep)
        else:
            query, reference = (assemble(blocks, ray.get) for blocks in views)
            labels = match_rows(query, reference, ordered[0], estep, self.graphs)
        self.shares = {}  # the object store is rid of them during the M-step
        return labels

    def rounds_done(self) -> int:
        """How many rounds are over: those before the one whose embeddings came last."""
        return max(0, self.round)


def start_index_actor(config: Config, features: Features, centre: np.ndarray, *, threads: int) -> Any:
    """Start the actor; it restarts by itself whenever its process dies.

    centre [2, D]: the views' means.
    """
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(IndexActor)
    actor: Any = remote.remote(config, centre, threads)
    actor.prepare.remote(features)  # while the workers start
    return actor


def actor_matcher(actor: Any, features: Features, shards: int) -> Matcher:
    """A matcher that asks the actor; every worker of the training must call it once a round."""

    def matcher(number: int, rows: EStepRows) -> PseudoLabels:
        workers, rank = collective.world_size(), collective.rank()
        share = Share(
            rows.query_rows,
            rows.reference_rows,
            _stored(rows.query, shards),
            _stored(rows.reference, shards),
            share=rows.share,
        )
        while True:
            ray.get(actor.add.remote(number, rank, share))
            _barrier()
            # Rank 0 alone asks, so that all workers see the same answer even if the actor dies in between.
            answer = ray.get(actor.match.remote(number, workers, features)) if rank == 0 else None
            labels = _from_rank_zero(answer)
            if labels is not None:
                return labels

    return matcher


@contextmanager
def show_rounds(actor: Any, rounds: int) -> Iterator[None]:
    """Show how many rounds are over while the body trains: the actor is asked, in a thread of its own."""
    if not is_shown():
        yield
        return
    ended, succeeded = threading.Event(), threading.Event()

    def watch() -> None:
        with progress("training", rounds, "rounds") as advance:
            seen, answer = 0, actor.rounds_done.remote()
            while not ended.is_set():
                if not ray.wait([answer], timeout=POLL_S)[0]:
                    advance(0)  # the actor is matching, or starts
                    continue
                try:
                    done = ray.get(answer)
                except ray.exceptions.RayError:
                    break  # training itself says what is wrong
                advance(done - seen)
                seen, answer = done, actor.rounds_done.remote()
                ended.wait(POLL_S)
            if succeeded.is_set():
                advance(rounds - seen)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        succeeded.set()
    finally:
        ended.set()
        watcher.join()


def _stored(rows: np.ndarray, shards: int) -> list[Block]:
    """Put rows into the object store, in at least a block for each shard."""
    return [Block(ray.put(part), len(part)) for part in cut(rows, shards)]


def _barrier() -> None:
    if collective.world_size() > 1:
        dist.barrier()


def _from_rank_zero(value: PseudoLabels | None) -> PseudoLabels | None:
    """Rank 0's value on every rank."""
    if collective.world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
