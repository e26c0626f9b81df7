"""The EM loop in the workers of one Ray Train run, and the trainer around it."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch

from cvgl_ray.config import Config
from cvgl_ray.distributed.index_actor import actor_matcher, start_index_actor
from cvgl_ray.distributed.tensorboard import RoundWriter
from cvgl_ray.em import collective
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.bundle import Bundle
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.loop import run_rounds
from cvgl_ray.em.neighbourhood import check_size
from cvgl_ray.em.selection import label_free_scores
from cvgl_ray.em.views import view_mean
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureTable, check_same_dimension

CHECKPOINT = "learner.pt"


@dataclass(frozen=True)
class Trained:
    """The bundle of a training and its last pseudo-labels (query image_id, reference image_id, cosine)."""

    bundle: Bundle
    pairs: list[tuple[str, str, float]]


@dataclass(frozen=True)
class TrainingData:
    """Two unlabelled feature tables as trainings share them: rows in the object store, in canonical order.

    centre [2, D]: the views' means.
    """

    query_ids: list[str]
    reference_ids: list[str]
    features: tuple[ray.ObjectRef, ray.ObjectRef]
    centre: np.ndarray


def train(
    query: FeatureTable, reference: FeatureTable, config: Config, recipes: dict[str, Any], output: Path
) -> Trained:
    """Train an adapter on two unlabelled feature tables; go on where an earlier run into `output` stopped.

    Raises InputError where the tables do not fit each other or the configuration.
    """
    check_batches(len(query), len(reference), config)
    data = share(query, reference)
    result = fit_on_workers(data, config, output, "train", output / "tensorboard", threads_per_worker(config))
    assert result.checkpoint is not None  # rank 0 reports one a round
    return collect(result.checkpoint, data, config, recipes)


def share(query: FeatureTable, reference: FeatureTable) -> TrainingData:
    """Put two tables into the object store, once for any number of trainings."""
    check_same_dimension(query, reference)
    query, reference = in_canonical_order(query), in_canonical_order(reference)
    centre = np.stack([view_mean(query.features), view_mean(reference.features)])
    features = ray.put(query.features), ray.put(reference.features)
    return TrainingData(query.image_ids, reference.image_ids, features, centre)


def fit_on_workers(
    data: TrainingData,
    config: Config,
    storage: Path,
    name: str,
    logs: Path,
    threads: int,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> ray.train.Result:
    """One Ray Train run of all rounds; it goes on where an earlier run of that name in `storage` stopped.

    logs: TensorBoard's folder; threads: of torch in each worker; callbacks: run in the controller's process.
    """
    actor = start_index_actor(config, data.features, data.centre, threads=threads)
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "config": config,
            "features": data.features,
            "centre": data.centre,
            "actor": actor,
            "threads": threads,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.run.workers, use_gpu=config.run.gpu, resources_per_worker=_resources(config)
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(storage.resolve()),
            name=name,
            failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=[RoundWriter(str(logs.resolve())), *callbacks],  # type: ignore[list-item]
        ),
    )
    try:
        return trainer.fit()
    except ray.train.WorkerGroupError as error:
        raise _cause(error) from error
    finally:
        ray.kill(actor)


def collect(
    checkpoint: ray.train.Checkpoint, data: TrainingData, config: Config, recipes: dict[str, Any]
) -> Trained:
    """The bundle of a run's last checkpoint."""
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / CHECKPOINT, weights_only=True)
    learner = build_learner(config, data.centre.shape[1])
    learner.load_state_dict(state)
    labels = learner.labels
    assert labels is not None
    rows = zip(*labels.pairs(), labels.cosine[labels.of_query >= 0].tolist(), strict=True)
    pairs = [(data.query_ids[q], data.reference_ids[r], cosine) for q, r, cosine in rows]
    return Trained(Bundle(learner.adapter.eval(), config, recipes, label_free_scores(labels)), pairs)


def in_canonical_order(table: FeatureTable) -> FeatureTable:
    """Rows sorted by a hash of their feature, so that no file or folder name reaches the training."""
    keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in table.features]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return FeatureTable([table.image_ids[i] for i in order], table.features[order])


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray Train worker runs: load, resume, then the rounds."""
    config: Config = arguments["config"]
    torch.set_num_threads(arguments["threads"])
    query, reference = ray.get(list(arguments["features"]))
    device = ray.train.torch.get_device()
    learner = build_learner(config, query.shape[1], torch.from_numpy(arguments["centre"].copy()), device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.load_state_dict(torch.load(Path(folder) / CHECKPOINT, weights_only=True))
    if isinstance(learner, GradientLearner):
        # Buffers are equal on all workers by construction; broadcasting them would only cost time.
        learner.parallel = ray.train.torch.prepare_model(
            learner.objective, parallel_strategy_kwargs={"forward_sync_buffers": False}
        )
    matcher = actor_matcher(arguments["actor"])
    rounds = run_rounds(
        learner,
        query,
        reference,
        estep=config.estep,
        rounds=config.mstep.rounds,
        seed=config.run.seed,
        matcher=matcher,
    )
    for done in rounds:
        _report(learner, {"round": done.number, **done.scalars})


def _report(learner: Learner, metrics: dict[str, Any]) -> None:
    """Report a round; rank 0 adds the checkpoint. A barrier: every worker calls it once a round."""
    if collective.rank() > 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(learner.state_dict(), Path(folder) / CHECKPOINT)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def check_batches(queries: int, references: int, config: Config) -> None:
    """Refuse a batch that so many images cannot fill, before anything starts."""
    fewest = min(queries, references)
    if fewest < 2:
        raise InputError(f"a view has {fewest} usable images; training needs at least two of each view")
    if config.estep.neighbourhood:
        check_size(queries, references)
    if config.estep.rows > references:
        raise InputError(
            f"estep.rows = {config.estep.rows}, but there are {references} references; "
            "lower it, or set 0 for an E-step over all rows"
        )


def threads_per_worker(config: Config) -> int:
    """Torch threads of a training worker: an equal share of this machine's cores, so that none waits."""
    return max(1, (os.cpu_count() or 1) // config.run.workers)


def _resources(config: Config) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if config.run.gpu else {"CPU": 1}


def _cause(error: ray.train.WorkerGroupError) -> Exception:
    """A worker's own InputError, if that is what ended the run, else the error itself."""
    for failure in error.worker_failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InputError):
                return cause
            cause = cause.__cause__ or getattr(cause, "cause", None)
    return error
