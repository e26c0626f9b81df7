"""Bytes that a gradient M-step and an E-step move between 1, 2, 4 and 8 workers, counted and by formula.

python experiments/benchmarks/communication.py [--quick]

Workers are gloo processes on this machine: their speed says nothing, their bytes do. Counted is the payload
that one worker hands to a collective; a ring all-reduce of n bytes over w workers then sends 2 n (w - 1) / w
each, an all-gather of n receives n (w - 1). DistributedDataParallel's own is seen through its hook.
"""

import copy
import pickle
import tempfile
from collections import Counter
from typing import Any

import click
import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from cvgl_ray.config import load_config
from cvgl_ray.em.batches import batches_of_pairs
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.matching import PseudoLabels
from cvgl_ray.em.rounds import EStepRows, embed_share, match_rows

ROWS, DIMENSION, PAIRS = 512, 64, 128


def count_collectives(sent: Counter[str]) -> None:
    """Let the collectives that the em room calls add their payload."""
    for name in ("all_reduce", "all_gather"):
        original = getattr(dist, name)

        def counted(*arguments: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            if not options:  # DistributedDataParallel's hook gives some, and counts for itself
                sent[name] += arguments[-1].nbytes
            return original(*arguments, **options)

        setattr(dist, name, counted)


def gradients(sent: Counter[str], state: Any, bucket: Any) -> Any:
    """DistributedDataParallel's usual hook, counted."""
    sent["gradients"] += bucket.buffer().nbytes
    return allreduce_hook(state, bucket)


def worker(rank: int, world: int, meeting: str, results: str) -> None:
    """One E-step and one M-step of one step; rank 0 writes what it handed over."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    sent: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    query, reference = (rng.standard_normal((ROWS, DIMENSION), dtype=np.float32) for _ in range(2))
    settings = ("adapter.kind=linear", "estep.neighbourhood=0", "mstep.steps_per_round=1")
    config = load_config(None, (*settings, "estep.match=argmax", f"mstep.batch_size={PAIRS}"))
    learner = build_learner(config.learning, DIMENSION, torch.zeros(2, DIMENSION))
    assert isinstance(learner, GradientLearner)
    if world > 1:
        learner.parallel = DistributedDataParallel(learner.objective, forward_sync_buffers=False)
        learner.parallel.register_comm_hook(None, lambda state, bucket: gradients(sent, state, bucket))
    share = embed_share(learner, query, reference, config.estep, rng)
    every = EStepRows(share.query_rows, share.reference_rows, query, reference)
    labels: PseudoLabels = match_rows(query, reference, every, config.estep, None)
    sent["to the index"] = share.query.nbytes + share.reference.nbytes
    sent["labels"] = len(pickle.dumps(labels))
    batch = next(batches_of_pairs(labels, PAIRS, 1, copy.deepcopy(rng)))  # what m_step will draw
    sent["references"] = len(batch.reference_rows)
    count_collectives(sent)
    learner.m_step(labels, query, reference, rng)
    if rank == 0:
        torch.save(dict(sent), results)
    if world > 1:
        dist.destroy_process_group()


def by_formula(world: int, references: int) -> dict[str, int]:
    """What a worker hands over: its share of embeddings and of the step's candidates, and the gradients."""
    if world == 1:
        return {"to the index": 2 * ROWS * DIMENSION * 4}
    weights = 2 * (DIMENSION * DIMENSION + DIMENSION) + 1
    shares = [-(-count // world) for count in (PAIRS, references)]
    terms = 3  # of the loss, summed for the log
    return {
        "to the index": 2 * ROWS * DIMENSION * 4 // world,
        "all_gather": sum(shares) * DIMENSION * 4,
        "all_reduce": world * sum(shares) * DIMENSION * 4 + 4 * terms,  # backward of the gather
        "gradients": 4 * weights,
    }


@click.command()
@click.option("--quick", is_flag=True, help="1 and 2 workers")
def main(quick: bool) -> None:
    """Print counted bytes beside the formula's for each number of workers."""
    for world in (1, 2) if quick else (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            files = f"{folder}/meeting", f"{folder}/sent"
            spawn(worker, (world, *files), nprocs=world)
            sent = torch.load(files[1], weights_only=True)
        labels = sent.pop("labels")
        expected = by_formula(world, sent.pop("references"))
        same = all(sent.get(key, 0) == value for key, value in expected.items())
        parts = ", ".join(f"{key} {value}" for key, value in sorted(sent.items()))
        verdict = "holds" if same else f"says {expected}"
        print(f"{world} workers: {parts} bytes a worker; formula {verdict}; labels {labels}")


if __name__ == "__main__":
    main()
