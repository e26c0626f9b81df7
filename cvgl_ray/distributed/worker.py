"""What every Ray Train worker runs: the EM loop, and a report with a checkpoint after each round."""

from itertools import islice
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from cvgl_ray.config import Config
from cvgl_ray.distributed.checkpoints import latest_state, save_checkpoint
from cvgl_ray.distributed.index import index_matcher, use_threads
from cvgl_ray.distributed.process_group import joined_workers
from cvgl_ray.distributed.resources import node_cores
from cvgl_ray.em import collective
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.rounds import run_rounds
from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import score_histograms
from cvgl_ray.reports.usage import Usage


def worker(arguments: dict[str, Any]) -> None:
    """Load, resume, then do the rounds up to "until". See `train.fit_on_workers` for the arguments."""
    beside = ray.train.get_context().get_local_world_size()  # workers on this node, itself among them
    use_threads(arguments["threads"] or max(1, node_cores() // beside))
    arguments["actor"].begin.remote()
    device = ray.train.torch.get_device()
    with joined_workers(device):
        _rounds(arguments, device)


def _rounds(arguments: dict[str, Any], device: torch.device) -> None:
    config: Config = arguments["config"]
    query, reference = ray.get(list(arguments["features"]))
    learner = build_learner(config, query.shape[1], torch.from_numpy(arguments["centre"].copy()), device)
    judges = config.run.agreement and collective.rank() == 0
    halves = HalfModels(query, reference, config) if judges else None
    state = latest_state(arguments["state"])
    if state is not None:
        learner.load_state_dict(state)
        if halves is not None and "halves" in state:  # else they are trained once more
            halves.load_state_dict(state["halves"])
    if isinstance(learner, GradientLearner):
        # Buffers are equal on all workers by construction; broadcasting them would only cost time.
        learner.parallel = ray.train.torch.prepare_model(
            learner.objective, parallel_strategy_kwargs={"forward_sync_buffers": False}
        )
    rounds = run_rounds(
        learner,
        query,
        reference,
        config,
        matcher=index_matcher(arguments["actor"], arguments["features"], config.estep.shards),
        judge=halves.judge if halves is not None else None,
    )
    usage = Usage()
    for done in islice(rounds, max(0, arguments["until"] - learner.rounds_done)):
        state = {**learner.state_dict(), "data": arguments["digest"]}
        if halves is not None:
            state["halves"] = halves.state_dict()
        metrics: dict[str, Any] = {"round": done.number, **done.scalars, **usage.read()}
        metrics["histograms"] = {}
        with shown("a round's histograms"):
            metrics["histograms"] = score_histograms(done.labels)
        _report(state, metrics, Path(arguments["staging"]))
        if _asked_to_end(arguments["ending"]):
            return


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


def _asked_to_end(ending: Path | None) -> bool:
    """Whether some worker sees the file that asks for an early end; all of them hear the same."""
    if ending is None:
        return False
    seen = torch.tensor(float(ending.exists()), device=ray.train.torch.get_device())
    return bool(collective.total(seen) > 0)
