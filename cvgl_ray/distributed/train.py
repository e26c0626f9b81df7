"""The EM loop in the workers of one Ray Train run, and the trainer around it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch

from cvgl_ray.config import Config
from cvgl_ray.distributed.checkpoints import data_digest, last_state, latest_state, save_checkpoint
from cvgl_ray.distributed.index_actor import actor_matcher, start_index_actor
from cvgl_ray.distributed.tensorboard import RoundWriter
from cvgl_ray.em import collective
from cvgl_ray.em.agreement import HalfModels
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.bundle import Bundle
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.loop import run_rounds
from cvgl_ray.em.neighbourhood import check_size
from cvgl_ray.em.selection import label_free_scores
from cvgl_ray.em.views import view_mean
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureTable, check_same_dimension


@dataclass(frozen=True)
class Trained:
    """The bundle of a training and its last pseudo-labels (query image_id, reference image_id, cosine)."""

    bundle: Bundle
    pairs: list[tuple[str, str, float]]


def train(
    query: FeatureTable, reference: FeatureTable, config: Config, recipes: dict[str, Any], output: Path
) -> Trained:
    """Train an adapter on two unlabelled feature tables; go on where an earlier run into `output` stopped.

    Raises InputError where the tables do not fit each other or the configuration.
    """
    check_same_dimension(query, reference)
    _check_batches(query, reference, config)
    query, reference = in_canonical_order(query), in_canonical_order(reference)
    data = data_digest(query, reference)
    state = last_state(output / "train")
    if state is not None and state.get("data") != data:
        raise InputError(
            f"the features changed since the training in {output} began; choose another --output, or remove "
            f"{output / 'train'} to start it over"
        )
    if state is None or state["rounds_done"] < config.mstep.rounds:
        _fit(query, reference, config, state, data, output)
        state = last_state(output / "train")
    assert state is not None  # rank 0 reports one a round
    return _collect(state, query, reference, config, recipes)


def _fit(
    query: FeatureTable,
    reference: FeatureTable,
    config: Config,
    state: dict[str, Any] | None,
    data: str,
    output: Path,
) -> None:
    """Do the rounds left after `state` on Ray Train's workers; checkpoints carry the `data` digest."""
    features = ray.put(query.features), ray.put(reference.features)
    centre = np.stack([view_mean(query.features), view_mean(reference.features)])
    actor = start_index_actor(config, features, centre, threads=threads_per_worker(config))
    trainer = _Trainer(
        _worker,
        train_loop_config={
            "config": config,
            "features": features,
            "centre": centre,
            "actor": actor,
            "state": ray.put(state),
            "data": data,
            "staging": str(output.resolve() / "train" / "staging"),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=_workers(config),  # type: ignore[arg-type]
            use_gpu=config.run.gpu,
            resources_per_worker=_resources(config),
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(output.resolve()),
            name="train",
            failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=[RoundWriter(str(output.resolve() / "tensorboard"))],  # type: ignore[list-item]
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    finally:
        ray.kill(actor)


class _Trainer(ray.train.torch.TorchTrainer):
    """Leaves Ctrl-C a KeyboardInterrupt: Ray's handler would exit with code 0, and outlive the training."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _collect(
    state: dict[str, Any],
    query: FeatureTable,
    reference: FeatureTable,
    config: Config,
    recipes: dict[str, Any],
) -> Trained:
    """The bundle of a run's round to keep."""
    learner = build_learner(config, query.dimension)
    learner.load_state_dict(state)
    kept = learner.return_to_best()
    labels = learner.labels
    assert labels is not None
    rows = zip(*labels.pairs(), labels.cosine[labels.of_query >= 0].tolist(), strict=True)
    pairs = [(query.image_ids[q], reference.image_ids[r], cosine) for q, r, cosine in rows]
    return Trained(Bundle(learner.adapter.eval(), config, recipes, label_free_scores(labels) | kept), pairs)


def in_canonical_order(table: FeatureTable) -> FeatureTable:
    """Rows sorted by a hash of their feature, so that no file or folder name reaches the training."""
    keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in table.features]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return FeatureTable([table.image_ids[i] for i in order], table.features[order])


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray Train worker runs: load, resume, then the rounds."""
    config: Config = arguments["config"]
    torch.set_num_threads(threads_per_worker(config))
    query, reference = ray.get(list(arguments["features"]))
    device = ray.train.torch.get_device()
    learner = build_learner(config, query.shape[1], torch.from_numpy(arguments["centre"].copy()), device)
    state = latest_state(arguments["state"])
    if state is not None:
        learner.load_state_dict(state)
    if isinstance(learner, GradientLearner):
        # Buffers are equal on all workers by construction; broadcasting them would only cost time.
        learner.parallel = ray.train.torch.prepare_model(
            learner.objective, parallel_strategy_kwargs={"forward_sync_buffers": False}
        )
    matcher = actor_matcher(arguments["actor"])
    judge = None
    if config.run.agreement and collective.rank() == 0:
        judge = HalfModels(query, reference, config).judge
    rounds = run_rounds(
        learner,
        query,
        reference,
        estep=config.estep,
        rounds=config.mstep.rounds,
        seed=config.run.seed,
        matcher=matcher,
        judge=judge,
    )
    for done in rounds:
        state = {**learner.state_dict(), "data": arguments["data"]}
        _report(state, {"round": done.number, **done.scalars}, Path(arguments["staging"]))


def _report(state: dict[str, Any], metrics: dict[str, Any], staging: Path) -> None:
    """Report a round; rank 0 adds the checkpoint. A barrier: every worker calls it once a round.

    staging: a folder of this run, so that a worker that is killed leaves nothing elsewhere.
    """
    if collective.rank() > 0:
        ray.train.report(metrics)
        return
    staging.mkdir(exist_ok=True)
    save_checkpoint(state, staging)
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(staging))


def _check_batches(query: FeatureTable, reference: FeatureTable, config: Config) -> None:
    """Refuse a batch that the data cannot fill, before anything starts."""
    fewest = min(len(query), len(reference))
    if fewest < 2:
        raise InputError(f"a view has {fewest} usable images; training needs at least two of each view")
    if config.estep.neighbourhood:
        check_size(len(query), len(reference))
    if config.estep.rows > len(reference):
        raise InputError(
            f"estep.rows = {config.estep.rows}, but there are {len(reference)} references; "
            "lower it, or set 0 for an E-step over all rows"
        )


def threads_per_worker(config: Config) -> int:
    """Torch threads of a training worker: an equal share of this machine's cores, so that none waits."""
    return max(1, (os.cpu_count() or 1) // config.run.workers)


def _workers(config: Config) -> int | tuple[int, int]:
    """How many workers, or how few and how many: Ray Train then goes on with what the cluster has."""
    fewest, most = config.run.min_workers, config.run.workers
    return (fewest, most) if 0 < fewest < most else most


def _resources(config: Config) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if config.run.gpu else {"CPU": 1}


def _cause(error: ray.train.TrainingFailedError) -> Exception:
    """The InputError or OSError (a full disk) behind the end of a run, if any, else the error itself."""
    failures = (
        list(error.worker_failures.values()) if isinstance(error, ray.train.WorkerGroupError) else [error]
    )
    for failure in failures:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InputError | OSError):
                return cause
            inner = (getattr(cause, name, None) for name in ("__cause__", "cause", "controller_failure"))
            cause = next(filter(None, inner), None)
    return error
