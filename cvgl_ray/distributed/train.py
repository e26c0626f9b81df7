"""The EM loop as a Ray Train run, and the bundle that it leaves."""

import logging
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from cvgl_ray.config import Config, Run
from cvgl_ray.distributed.align import AlignedData, Alignment, share_cells
from cvgl_ray.distributed.cells import bytes_needed
from cvgl_ray.distributed.index import start_index
from cvgl_ray.distributed.resources import check_needs, training_need
from cvgl_ray.distributed.rows import TrainingData, share
from cvgl_ray.distributed.trained import Trained, collect
from cvgl_ray.distributed.watch import RoundWriter, show_rounds
from cvgl_ray.distributed.worker import NoGroup, worker
from cvgl_ray.em.batches import check_batches
from cvgl_ray.em.inputs import doubts
from cvgl_ray.errors import GaveUpError, InputError, chain
from cvgl_ray.features.table import Table
from cvgl_ray.reports.tensorboard import configuration_table
from cvgl_ray.storage.checkpoints import keep_newest, last_state
from cvgl_ray.storage.filesystem import resolve
from cvgl_ray.storage.run_folder import RunFolder

log = logging.getLogger(__name__)

BYTES_PER_ANSWER = 1200  # of 32 candidates, three times while answers are merged
BYTES_PER_ROW = 3000  # of some 64 pairs per row, with their scores, neighbours' matches and sorting keys


def train(
    query: Table,
    reference: Table,
    config: Config,
    recipes: dict[str, Any],
    folder: RunFolder,
    cells: AlignedData | None = None,
) -> Trained:
    """Train an adapter on two unlabelled feature tables; go on where an earlier run into `folder` stopped.

    cells: what the rows' images are laid on each other by, if they are.
    Raises InputError where the tables do not fit each other or the configuration, and where the cluster can
    never give what the training asks for.
    """
    check_batches(len(query), len(reference), config.estep)
    check_needs([training_need(config.run)])
    data = share(query, reference)
    for doubt in doubts(*data.row_digests):
        log.warning("warning: %s", doubt)
    checkpoints = folder.path / "train"
    folder.fetch("train")
    state = last_state(checkpoints)
    if state is not None and state.get("data") != data.digest:
        raise InputError(
            f"the features changed since the training in {folder.path} began; choose another --output, or "
            f"remove {checkpoints} to start it over"
        )
    if state is None or state["rounds_done"] < config.mstep.rounds:
        keep_newest(checkpoints)
        folder.prune("train")
        log.info(
            "training: %d rounds on %d query and %d reference images, %d worker(s), once these have started",
            config.mstep.rounds,
            len(query),
            len(reference),
            config.run.workers,
        )
        logs, staging = folder.path / "tensorboard", checkpoints / "staging"
        alignment = (
            None
            if cells is None
            else share_cells(cells, data.query_ids, data.reference_ids, config.alignment)
        )
        fit_on_workers(
            data,
            config,
            folder.address,
            "train",
            logs,
            staging=staging,
            state=state,
            alignment=alignment,
        )
        folder.fetch("train")
        state = last_state(checkpoints)
        keep_newest(checkpoints)
    assert state is not None  # rank 0 reports one a round
    return collect(state, data, config, recipes, cells)


def fit_on_workers(
    data: TrainingData,
    config: Config,
    storage: str,
    name: str,
    logs: Path,
    *,
    staging: Path,
    threads: int = 0,
    state: dict[str, Any] | None = None,
    alignment: Alignment | None = None,
) -> ray.train.Result:
    """One Ray Train run of the rounds that are left.

    It goes on after `state`, or where Ray's own account in `storage`/`name` says an earlier run stopped.
    storage: a path or a URI; logs: TensorBoard's folder; staging: where a worker writes a checkpoint before
    it goes to the storage; threads: of torch in each worker, 0 for an equal share of its node's cores;
    alignment: of the rows' images.
    """
    actor = start_index(
        config.learning,
        data.centre.shape[1],
        config.run.workers,
        memory=_index_bytes(data, config, aligned=alignment is not None),
        threads=threads,
    )
    writer = RoundWriter(str(logs.resolve()), configuration_table(config))
    trainer = _Trainer(
        worker,
        train_loop_config={
            "learning": config.learning,
            "poses": (config.alignment.headings, config.alignment.widths),
            "features": data.features,
            "centre": data.centre,
            "digest": data.digest,
            "actor": actor,
            "alignment": alignment,
            "threads": threads,
            "state": ray.put(state),
            "staging": str(staging.resolve()),
        },
        torch_config=NoGroup(),
        scaling_config=_scaling(config.run),
        run_config=_run_config(storage, name, config.run.max_failures, writer),
    )
    try:
        with show_rounds(actor, config.mstep.rounds, training_need(config.run)):
            return trainer.fit()
    except (ray.train.TrainingFailedError, ray.exceptions.RayTaskError) as error:
        raise _cause(error) from error
    finally:
        ray.kill(actor)


def _index_bytes(data: TrainingData, config: Config, *, aligned: bool) -> int:
    """What the index holds at a time: candidates; with alignment cells, embeddings, all pairs' scores too."""
    queries, references = len(data.query_ids), len(data.reference_ids)
    # Each worker, as a shard, answers for all queries.
    held = BYTES_PER_ROW * (queries + references) + BYTES_PER_ANSWER * config.run.workers * queries
    if not aligned:
        return held
    width = config.adapter.width or data.centre.shape[1]
    held += 4 * (width * (queries + references) + 3 * queries * references)
    cells = bytes_needed(config.alignment, queries, references, strips=config.strips)
    return held + min(cells, round(config.alignment.memory_gib * 2**30))


class _NoRetry(ray.train.UserCallback):
    """Ends the run where a worker found bad input or gave something up: the next try would end likewise."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            for cause in chain(error):
                if isinstance(cause, InputError | GaveUpError):
                    raise cause


class _Trainer(ray.train.torch.TorchTrainer):
    """Leaves Ctrl-C a KeyboardInterrupt: Ray's handler would exit with code 0, and outlive the training."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _run_config(storage: str, name: str, failures: int, writer: RoundWriter) -> ray.train.RunConfig:
    """Where a run keeps its account, and how many failures it survives."""
    filesystem, storage_path = resolve(storage)
    return ray.train.RunConfig(
        storage_path=storage_path,
        storage_filesystem=filesystem,
        name=name,
        failure_config=ray.train.FailureConfig(max_failures=failures),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        callbacks=[_NoRetry(), writer],  # type: ignore[list-item]
    )


def _scaling(run: Run) -> ray.train.ScalingConfig:
    """How many workers, or how few and how many: Ray Train then goes on with what the cluster has."""
    fewest, most = run.min_workers, run.workers
    return ray.train.ScalingConfig(
        num_workers=(fewest, most) if 0 < fewest < most else most,  # type: ignore[arg-type]
        use_gpu=run.gpu,
        resources_per_worker=dict(training_need(run).each),
        placement_strategy="SPREAD",  # over as many nodes as there are
    )


def _cause(error: Exception) -> BaseException:
    """What lies behind the end of a run and is told in a sentence (an OSError: a full disk), else itself."""
    told = InputError | GaveUpError | OSError
    return next((cause for cause in chain(error) if isinstance(cause, told)), error)
