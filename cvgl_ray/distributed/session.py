"""Connecting to Ray."""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from cvgl_ray import logs
from cvgl_ray.distributed.address import LOCAL, cluster_address
from cvgl_ray.distributed.resources import Need, alive_nodes, check_needs, check_needs_here, in_words
from cvgl_ray.errors import InputError

log = logging.getLogger(__name__)

# What Ray is told before it starts, unless the user says otherwise.
_ENVIRONMENT = {
    # A round ends when the controller has fetched its report; by default it looks every two seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # Checkpoints come every round; the watcher of node preemptions would add an error line to every run.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray's C++ layer prints to the terminal what it also raises, or what concerns its own helpers.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


# Of workers and actors whose log the driver shows, wherever they run.
_TALKING = {"env_vars": {logs.VERBOSE: "1"}, "worker_process_setup_hook": "cvgl_ray.logs.set_up"}


def connect(address: str = "", *, dashboard: bool = False) -> None:
    """Join the cluster at `address`, else the one this process was submitted to, else start one here.

    A process that is already connected keeps its connection. With `--verbose` workers' logs are shown too.
    dashboard: of a cluster that is started here; it costs seconds of CPU, and Ray Train asks it what a
    training that was killed had reserved.
    Raises InputError, within seconds, for an address without a cluster; see `cluster_address`.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    address = cluster_address(address)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        # What workers print stays in Ray's log files: their errors come back by themselves.
        with _quiet_stderr():
            ray.init(
                address=address,
                include_dashboard=dashboard,
                logging_level=logging.ERROR,
                log_to_driver=logs.is_verbose(),
                runtime_env=_TALKING if logs.is_verbose() else None,
            )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        if address == LOCAL:
            raise
        raise InputError(
            f"the Ray cluster at {address} answers, but does not let this process join "
            f"({str(error).strip().splitlines()[0]}); run the command on one of its nodes, or submit it as a "
            "job, with the cluster's token in RAY_AUTH_TOKEN_PATH"
        ) from error
    # Ray puts its own handler in place, which drains the node for half a minute or ends without a word.
    if callable(on_termination) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)
    if address != LOCAL:
        log.info("joined the Ray cluster at %s: %s", address, in_words(alive_nodes()))


def check_room(address: str, needs: Sequence[Need]) -> None:
    """Refuse what can never be given, before anything else is done.

    A cluster that runs is joined and asked; where one is to be started here, this machine is looked at.
    Raises InputError, also for an address without a cluster.
    """
    if not ray.is_initialized() and cluster_address(address) == LOCAL:
        check_needs_here(needs)
    else:
        connect(address)
        check_needs(needs)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, where Ray announces its settings; a fault shows it."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except (ConnectionError, RuntimeError, ray.exceptions.RayError):
            raise  # which says it all
        except Exception:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def cluster_cpus() -> int:
    """CPUs of the whole cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def cluster_gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
