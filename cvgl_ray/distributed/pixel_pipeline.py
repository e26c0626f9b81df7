"""Pixels to features by Ray Data: images are decoded on CPUs, a pool of actors holds the model.

One Ray Data row is one batch of images, so that a batch stays whole whatever Ray does with blocks.
"""

from collections.abc import Iterator, Sequence

import ray
import torch

from cvgl_ray.distributed import session
from cvgl_ray.distributed.resources import check_needs, extraction_need, said_while_awaited
from cvgl_ray.features.batches import Batch, Work


def run_batches(
    batches: Sequence[Batch],
    work: Work,
    *,
    gpu: bool,
    actors: int,
) -> Iterator[Batch]:
    """The batches' features, as they are made, in any order.

    actors: how many copies of the model work at a time; 0: one per GPU or CPU.
    """
    need = extraction_need(actors, gpu=gpu)
    check_needs([need])
    shared = ray.put(work)
    ray.data.DataContext.get_current().enable_progress_bars = False  # `progress` counts images instead
    data = (
        ray.data.from_items(list(batches), override_num_blocks=len(batches))
        .map(work.decoding(), num_cpus=1)
        .map(
            _Embed,  # type: ignore[arg-type]  # Ray constructs the class in its actors
            fn_constructor_args=(shared, "cuda" if gpu else "cpu"),
            compute=pool(actors, session.cluster_gpus() if gpu else session.cluster_cpus()),
            num_cpus=0 if gpu else 1,
            num_gpus=1 if gpu else 0,
        )
    )
    with said_while_awaited("extraction", need) as begun:
        for row in data.iter_rows():
            begun()
            yield row


def pool(asked: int, present: int) -> ray.data.ActorPoolStrategy:
    """As many actors as asked for; if none, one per GPU or CPU that is up now, more as the cluster grows.

    On CPUs Ray fuses both steps into the actors, so one actor per core keeps every core at work.
    """
    if asked:
        return ray.data.ActorPoolStrategy(size=asked)
    return ray.data.ActorPoolStrategy(min_size=max(1, present), max_size=None)


class _Embed:
    """Ray Data actor: holds the model; pixels -> features."""

    def __init__(self, work: ray.ObjectRef, device: str) -> None:
        torch.set_num_threads(1)  # an actor holds one core; Ray's own limit yields to OMP_NUM_THREADS
        self.work: Work = ray.get(work)
        self.work.to(device)
        self.work.fold()

    def __call__(self, batch: Batch) -> Batch:
        return self.work(batch)
