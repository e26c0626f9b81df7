"""Connecting to Ray, and what a run may use of the machine."""

import logging
import os
import signal
import threading

import ray

from cvgl_ray.errors import InputError


def connect(address: str = "") -> None:
    """Join the cluster at `address`, else the one this process was submitted to, else start one here.

    A process that is already connected keeps its connection. Raises InputError for an address without a
    cluster.
    """
    # Checkpoints come every round; the watcher of node preemptions would add an error line to every run.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # A round's report is taken when the controller next looks at its workers; by default every two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if ray.is_initialized():
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        # What workers print stays in Ray's log files: their errors come back by themselves.
        ray.init(address=address or None, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at {address!r}; start one with `ray start --head`"
        ) from error
    # Ray puts its own handler in place, which drains the node for half a minute or ends without a word.
    if callable(on_termination) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)


def cluster_cpus() -> int:
    """CPUs of the whole cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def cluster_gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
