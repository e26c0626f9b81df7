"""Which Ray cluster a command joins, found out within seconds and before Ray is imported.

Ray itself tries a dead address for a quarter of an hour, and never forgets the one that a dead cluster left
in its file.
"""

import logging
import os
import re
import socket
import tempfile
from pathlib import Path

from cvgl_ray.errors import InputError

log = logging.getLogger(__name__)

LOCAL = "local"  # Ray's word for a cluster that is started here
PATIENCE_S = 5.0  # for each of two answers: of the port, and of Ray behind it

_ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+):(?P<port>\d{1,5})")


def cluster_address(asked: str = "") -> str:
    """The address of a cluster that answers: `asked`, else RAY_ADDRESS's, else the one in Ray's own file.

    LOCAL where nobody named a cluster and none runs here.
    Raises InputError for what is no address and for one at which no Ray answers.
    """
    name, address = "--address", asked
    if asked in ("", "auto") and os.environ.get("RAY_ADDRESS"):
        name, address = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
    if address == LOCAL:
        return LOCAL
    if address in ("", "auto"):
        return _running_here() or _nobody(address)
    if not _ADDRESS.fullmatch(address):
        raise InputError(
            f"{name} is {address!r}, which is no address of a Ray cluster; give HOST:PORT of its head (port "
            "6379 unless another was chosen), or leave it out to start a cluster here"
        )
    reason = unanswered(address)
    if reason:
        raise InputError(
            f"no Ray cluster answers at {address} ({name}): {reason}; start one with `ray start --head`, or "
            "leave the address out to start one here"
        )
    return address


def _running_here() -> str:
    """The address in the file that `ray start` leaves on this machine, "" where that cluster is gone."""
    folder = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    try:
        address = Path(folder, "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""
    if not _ADDRESS.fullmatch(address) or unanswered(address):
        log.info(
            "the Ray cluster at %s is gone, though Ray's file still names it; starting one here", address
        )
        return ""
    return address


def _nobody(address: str) -> str:
    if address == "auto":
        raise InputError("--address is 'auto', but no Ray cluster runs here; leave it out to start one")
    return LOCAL


def unanswered(address: str) -> str:
    """Why no Ray cluster answers at HOST:PORT, "" where one does; at most twice PATIENCE_S."""
    found = _ADDRESS.fullmatch(address)
    assert found is not None
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        with socket.create_connection((host, port), timeout=PATIENCE_S):
            pass
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        return str(getattr(error, "strerror", None) or error)
    if os.environ.get("RAY_USE_TLS", "0") == "1":
        return ""  # what follows would need its certificates
    import grpc

    with grpc.insecure_channel(found[0].removeprefix("ray://")) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE_S)
        except grpc.FutureTimeoutError:
            return "something else listens there"
    return ""
