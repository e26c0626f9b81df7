"""How the workers of one training find each other."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import ray.train
import ray.train.collective
import ray.train.torch
import ray.util
import torch
import torch.distributed as dist
from ray.train.backend import Backend

MEETING = timedelta(minutes=10)  # within which all workers have found rank 0
# Of any wait for another worker, which may take as long as an E-step or a judge does. A worker that dies ends
# the wait at once: Ray Train then starts all of them anew.
STEP = timedelta(days=30)


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
