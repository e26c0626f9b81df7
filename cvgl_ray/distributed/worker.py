"""What every Ray Train worker runs: it meets the others, does the rounds, reports each with a checkpoint."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import ray.util
import torch
import torch.distributed as dist
from ray.train.backend import Backend

from cvgl_ray.config import Learning
from cvgl_ray.distributed.align import Alignment
from cvgl_ray.distributed.asking import index_matcher
from cvgl_ray.distributed.resources import node_cores, use_threads
from cvgl_ray.em import collective
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import normalised, run_rounds
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import pose_histograms, score_histograms
from cvgl_ray.reports.usage import Usage
from cvgl_ray.storage.checkpoints import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

MEETING = timedelta(minutes=10)  # within which all workers have found rank 0
# Of any wait for another worker, which may take as long as an E-step or a judge does. A worker that dies ends
# the wait at once: Ray Train then starts all of them anew.
STEP = timedelta(days=30)


def worker(arguments: dict[str, Any]) -> None:
    """Load, resume, then do the rounds that are left. See `train.fit_on_workers` for the arguments."""
    beside = ray.train.get_context().get_local_world_size()  # workers on this node, itself among them
    use_threads(arguments["threads"] or max(1, node_cores() // beside))
    arguments["actor"].begin.remote()
    device = ray.train.torch.get_device()
    with joined_workers(device):
        _rounds(arguments, device)


def _rounds(arguments: dict[str, Any], device: torch.device) -> None:
    learning: Learning = arguments["learning"]
    query, reference = ray.get(list(arguments["features"]))
    learner = build_learner(learning, query.shape[1], torch.from_numpy(arguments["centre"].copy()), device)
    judges = learning.agreement and collective.rank() == 0
    halves = HalfModels(query, reference, learning) if judges else None
    state = _latest_state(arguments["state"])
    if state is not None:
        learner.load_state_dict(state)
        if halves is not None and "halves" in state:  # else they are trained once more
            halves.load_state_dict(state["halves"])
    if isinstance(learner, GradientLearner):
        # Buffers are equal on all workers by construction; broadcasting them would only cost time.
        learner.parallel = ray.train.torch.prepare_model(
            learner.objective, parallel_strategy_kwargs={"forward_sync_buffers": False}
        )
    alignment: Alignment | None = arguments["alignment"]
    kept = None  # what was aligned in the round to keep
    if alignment is not None and state is not None:
        alignment.state, kept = state.get("alignment"), state.get("alignment_kept")

    def frozen(view: int, part: slice) -> np.ndarray:
        return normalised((query, reference)[view], view, part, learner.adapter)

    def judge(judged: Learner) -> dict[str, float]:
        assert halves is not None
        return halves.judge(judged, alignment.laid if alignment is not None else None)

    rounds = run_rounds(
        learner,
        query,
        reference,
        learning,
        matcher=index_matcher(arguments["actor"], frozen, device.type, alignment),
        judge=judge if halves is not None else None,
    )
    usage = Usage()
    for done in rounds:
        state = {**learner.state_dict(), "data": arguments["digest"]}
        if alignment is not None:
            if learner.kept_scores()["rounds"] == learner.rounds_done:
                kept = alignment.state
            state |= {"alignment": alignment.state, "alignment_kept": kept}
        if halves is not None:
            state["halves"] = halves.state_dict()
        metrics: dict[str, Any] = {"round": done.number, **done.scalars, **usage.read()}
        metrics["histograms"] = {}
        with shown("a round's histograms"):
            metrics["histograms"] = score_histograms(done.labels)
            if alignment is not None and alignment.state is not None:
                metrics["histograms"] |= pose_histograms(alignment.state, *arguments["poses"])
        log.debug("rank %d, %s", collective.rank(), _in_words(metrics))
        _report(state, metrics, Path(arguments["staging"]))


def _in_words(metrics: dict[str, Any]) -> str:
    """How long the parts of a round took, for the log."""
    parts = ("time/e_step_s", "time/m_step_s")
    times = ", ".join(f"{name.split('/')[1]} {metrics[name]:.3f}" for name in parts)
    return f"round {metrics['round']}: {times}"


def _report(state: dict[str, Any], metrics: dict[str, Any], staging: Path) -> None:
    """Report a round; rank 0 adds the checkpoint. A barrier: every worker calls it once a round.

    staging: a folder of this run, so that a worker that is killed leaves nothing elsewhere.
    """
    if collective.rank() > 0:
        ray.train.report(metrics)
        return
    staging.mkdir(parents=True, exist_ok=True)
    save_checkpoint(state, staging)
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(staging))


def _latest_state(start: ray.ObjectRef) -> dict[str, Any] | None:
    """Of the last round that these workers or their predecessors reported, else what the run started from."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        state: dict[str, Any] | None = ray.get(start)
        return state
    with checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder))


class _SharedDevices(Backend):
    share_cuda_visible_devices = True  # among a node's workers, so that NCCL finds the way between them


class NoGroup(ray.train.torch.TorchConfig):
    """Ray Train opens no process group: `joined_workers` does."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _SharedDevices


@contextmanager
def joined_workers(device: torch.device) -> Iterator[None]:
    """A process group of all workers of this Ray Train run; one worker needs none.

    Ray's own (TorchConfig) meets at a store that listens on every address of rank 0's machine. This one
    listens on the address by which Ray knows the node: the loopback, where the command line started the
    cluster. Gloo's own sockets are on the host name's address, or that of GLOO_SOCKET_IFNAME.
    """
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    if size == 1:
        yield
        return
    listener = _listener() if rank == 0 else None
    address, port = ray.train.collective.broadcast_from_rank_zero(listener and listener.getsockname()[:2])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port,
        size,
        is_master=rank == 0,
        timeout=MEETING,
        master_listen_fd=listener.detach() if listener else None,
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=STEP)
    yield
    ray.train.collective.barrier()  # rank 0 holds the store
    dist.destroy_process_group()  # after a failure Ray ends the processes


def _listener() -> socket.socket:
    address = ray.util.get_node_ip_address()
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
