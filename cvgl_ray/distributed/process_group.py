"""How the workers of one training find each other."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray.train
import ray.train.collective
import ray.train.torch
import ray.util
import torch
import torch.distributed as dist
from ray.train.backend import Backend


class NoGroup(ray.train.torch.TorchConfig):
    """Ray Train opens no process group: `joined_workers` does."""

    @property
    def backend_cls(self) -> type[Backend]:
        return Backend


@contextmanager
def joined_workers(device: torch.device) -> Iterator[None]:
    """A process group of all workers of this Ray Train run; one worker needs none.

    Ray's own (TorchConfig) meets at a store that listens on every address of rank 0's machine. This one
    listens on the address by which Ray knows the node: the loopback, where the cluster is this machine alone.
    """
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    if size == 1:
        yield
        return
    listener = socket.create_server((ray.util.get_node_ip_address(), 0)) if rank == 0 else None
    address, port = ray.train.collective.broadcast_from_rank_zero(listener and listener.getsockname()[:2])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, size, is_master=rank == 0, master_listen_fd=listener.detach() if listener else None
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    yield
    dist.destroy_process_group()  # after a failure Ray ends the processes
