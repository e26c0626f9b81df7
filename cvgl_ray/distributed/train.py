"""The EM loop as a Ray Train run, and the bundle that it leaves."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch

from cvgl_ray.bundle import Bundle
from cvgl_ray.config import Config
from cvgl_ray.distributed.checkpoints import last_state
from cvgl_ray.distributed.index_actor import show_rounds, start_index_actor
from cvgl_ray.distributed.process_group import NoGroup
from cvgl_ray.distributed.tensorboard import RoundWriter
from cvgl_ray.distributed.training_data import TrainingData, check_batches, share
from cvgl_ray.distributed.worker import worker
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.inputs import doubts
from cvgl_ray.em.retrieval import training_banks
from cvgl_ray.em.selection import label_free_scores
from cvgl_ray.errors import InputError, chain
from cvgl_ray.features.store import FeatureTable
from cvgl_ray.features.views import row_digests
from cvgl_ray.reports.pictures import Example
from cvgl_ray.storage.filesystem import resolve
from cvgl_ray.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The bundle of a training, its last pseudo-labels, and examples of retrieval from each of its rounds.

    pairs: (query image_id, reference image_id, cosine).
    """

    bundle: Bundle
    pairs: list[tuple[str, str, float]]
    examples: list[list[Example]]


def train(
    query: FeatureTable, reference: FeatureTable, config: Config, recipes: dict[str, Any], folder: RunFolder
) -> Trained:
    """Train an adapter on two unlabelled feature tables; go on where an earlier run into `folder` stopped.

    Raises InputError where the tables do not fit each other or the configuration.
    """
    check_batches(len(query), len(reference), config)
    for doubt in doubts(query.features, reference.features):
        log.warning("warning: %s", doubt)
    data = share(query, reference)
    checkpoints = folder.path / "train"
    folder.fetch("train")
    state = last_state(checkpoints)
    if state is not None and state.get("data") != data.digest:
        raise InputError(
            f"the features changed since the training in {folder.path} began; choose another --output, or "
            f"remove {checkpoints} to start it over"
        )
    if state is None or state["rounds_done"] < config.mstep.rounds:
        folder.prune("train")
        log.info(
            "training: %d rounds on %d query and %d reference images, %d worker(s), once these have started",
            config.mstep.rounds,
            len(query),
            len(reference),
            config.run.workers,
        )
        logs, threads = folder.path / "tensorboard", threads_per_worker(config)
        staging = checkpoints / "staging"
        fit_on_workers(data, config, folder.address, "train", logs, threads, staging=staging, state=state)
        folder.fetch("train")
        state = last_state(checkpoints)
    assert state is not None  # rank 0 reports one a round
    return collect(state, data, config, recipes)


def fit_on_workers(
    data: TrainingData,
    config: Config,
    storage: str,
    name: str,
    logs: Path,
    threads: int,
    *,
    staging: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
    state: dict[str, Any] | None = None,
    until: int | None = None,
    ending: Path | None = None,
) -> ray.train.Result:
    """One Ray Train run of the rounds that are left, or of those up to `until`.

    It goes on after `state`, or where Ray's own account in `storage`/`name` says an earlier run stopped.
    storage: a path or a URI; logs: TensorBoard's folder; threads: of torch in each worker; staging: where a
    worker writes a checkpoint before it goes to the storage; callbacks: run in the controller's process;
    ending: a file whose appearance ends the run after the present round, on storage that all workers see.
    """
    actor = start_index_actor(config, data.features, data.centre, threads=threads)
    filesystem, storage_path = resolve(storage)
    trainer = _Trainer(
        worker,
        train_loop_config={
            "config": config,
            "features": data.features,
            "centre": data.centre,
            "digest": data.digest,
            "actor": actor,
            "threads": threads,
            "state": ray.put(state),
            "until": until or config.mstep.rounds,
            "ending": ending,
            "staging": str(staging.resolve()),
        },
        torch_config=NoGroup(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=_workers(config),  # type: ignore[arg-type]
            use_gpu=config.run.gpu,
            resources_per_worker=_resources(config),
        ),
        run_config=ray.train.RunConfig(
            storage_path=storage_path,
            storage_filesystem=filesystem,
            name=name,
            failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
            callbacks=[RoundWriter(str(logs.resolve()), config), *callbacks],  # type: ignore[list-item]
        ),
    )
    try:
        with show_rounds(actor, config.mstep.rounds):
            return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    finally:
        ray.kill(actor)


class _Trainer(ray.train.torch.TorchTrainer):
    """Leaves Ctrl-C a KeyboardInterrupt: Ray's handler would exit with code 0, and outlive the training."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def collect(state: dict[str, Any], data: TrainingData, config: Config, recipes: dict[str, Any]) -> Trained:
    """The bundle of the round to keep, from a learner's state."""
    learner = build_learner(config, data.centre.shape[1])
    learner.load_state_dict(state)
    kept = learner.return_to_best()
    labels = learner.labels
    assert labels is not None
    rows = zip(*labels.pairs(), labels.cosine[labels.of_query >= 0].tolist(), strict=True)
    pairs = [(data.query_ids[q], data.reference_ids[r], cosine) for q, r, cosine in rows]
    examples = [
        [(data.query_ids[q], [data.reference_ids[r] for r in best if r >= 0]) for q, *best in rows.tolist()]
        for rows in learner.examples
    ]
    adapter = learner.adapter.eval()
    features = ray.get(list(data.features))
    banks = training_banks(adapter, *features)
    query, reference = (np.sort(row_digests(rows)) for rows in features)
    scores = {"score": None} | label_free_scores(labels) | kept
    bundle = Bundle(adapter, banks, config, recipes, scores, (query, reference))
    return Trained(bundle, pairs, examples)


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
    return next((cause for cause in chain(error) if isinstance(cause, InputError | OSError)), error)
