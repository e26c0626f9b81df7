"""Which cluster a command joins: those that cannot answer are told within seconds; no Ray is imported."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from cvgl_ray.distributed import address as address_module
from cvgl_ray.distributed.address import LOCAL, cluster_address
from cvgl_ray.errors import InputError


@pytest.fixture(autouse=True)
def leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `ray start` says where its cluster is; of a machine without a cluster, so far."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a server that speaks Ray's protocol."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_cluster_that_answers_is_joined(
    answering: str, leftover: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster_address(answering) == answering
    assert cluster_address() == LOCAL
    leftover.write_text(answering)
    assert cluster_address() == cluster_address("auto") == answering
    assert cluster_address(LOCAL) == LOCAL
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert cluster_address(answering) == answering
    with pytest.raises(InputError, match=r"RAY_ADDRESS"):
        cluster_address()


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "127.0.0.1", "host:port", "a b:1"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(InputError, match=rf"--address is '{address}', which is no address .*HOST:PORT"):
        cluster_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_said_at_once(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no Ray cluster answers at .*:.*ray start --head"):
        cluster_address(address.format(free=free_port()))
    assert time.monotonic() - began < 12


def test_something_else_that_listens_is_told_from_a_cluster(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_module, "PATIENCE_S", 0.5)
    began = time.monotonic()
    with pytest.raises(InputError, match=f"answers at {silent} .*something else listens there"):
        cluster_address(silent)
    assert 0.5 < time.monotonic() - began < 5


def test_a_dead_clusters_file_is_passed_over(leftover: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"127.0.0.1:{free_port()}"
    leftover.write_text(address)
    with caplog.at_level("INFO"):
        assert cluster_address() == LOCAL
    assert f"the Ray cluster at {address} is gone" in caplog.text
    with pytest.raises(InputError, match="no Ray cluster runs here"):
        cluster_address("auto")


def test_ray_is_not_imported() -> None:
    code = "import sys, cvgl_ray.distributed.address; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
