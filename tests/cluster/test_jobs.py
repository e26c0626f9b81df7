"""A training submitted as a job to a cluster of separate processes: it survives the loss of a worker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import PLACES, SMALL, write_places

from cvgl_ray.em.bundle import load_bundle

LOCAL = Path(__file__).parents[2] / "cluster" / "local.sh"
ROUNDS = 60  # enough that the worker dies in the middle of them
JOB_LIMIT_S = 240  # of one submitted job, several times what it takes on a quiet machine of two cores

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


class Cluster:
    """A cluster of its own folder and ports, and the commands of cluster/local.sh on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CVGL_RAY_CLUSTER": str(folder),
            "CVGL_RAY_PORT": str(free_ports()),
            "CVGL_RAY_DASHBOARD_PORT": str(free_ports()),
            "CVGL_RAY_CPUS": "1",
            "CVGL_RAY_OBJECT_STORE": "200000000",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [LOCAL, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, limit_s: float = JOB_LIMIT_S) -> tuple[int, str]:
        return finish(self.start(*arguments), limit_s)

    def training_workers(self) -> list[int]:
        """Process ids of Ray Train's workers: children of this cluster's raylets, and of no other's."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if b"TrainWorker" in (process / "cmdline").read_bytes():
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                    if str(self.folder).encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                        found.append(int(process.name))
            except OSError:  # it ended meanwhile
                continue
        return found


def free_ports() -> int:
    """The first of two neighbouring free ports."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two neighbouring free ports")


def finish(process: subprocess.Popen[str], limit_s: float) -> tuple[int, str]:
    """Exit code and output of a command, which is killed at the limit."""
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"no end after {limit_s} s:\n{output[-4000:]}")
    return process.returncode, output


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="cvgl-", dir="/tmp"))  # short: Ray's socket paths lie below it
    cluster = Cluster(folder)
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated"))  # and clean up first
    try:
        code, output = cluster.run("up", limit_s=180)
        assert code == 0, output
        yield cluster
    finally:
        cluster.run("down", limit_s=120)
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"), [f"{number:04d}" for number in range(PLACES)])


def arguments(places: Path, output: Path, *more: str) -> list[str]:
    """Of a submission: the small configuration with many rounds."""
    settings = (f"dataset.root={places}", *SMALL, f"mstep.rounds={ROUNDS}", *more)
    return ["submit", "--output", str(output), *(part for setting in settings for part in ("--set", setting))]


def figures(output: Path) -> dict[str, Any]:
    return json.loads((output / "metrics.json").read_text())["adapted"]


def kill_one_worker_in_a_round(cluster: Cluster, job: subprocess.Popen[str], output: Path) -> None:
    limit = time.monotonic() + JOB_LIMIT_S
    while not (workers := cluster.training_workers()) or not any(output.glob("train/checkpoint_*")):
        if job.poll() is not None or time.monotonic() > limit:
            job.kill()
            pytest.fail(f"no round was done:\n{job.communicate()[0][-4000:]}")
        time.sleep(0.02)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert not (output / "metrics.json").exists()


def test_a_job_survives_a_killed_worker_and_returns_at_once_when_submitted_again(
    cluster: Cluster, places: Path, tmp_path: Path
) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    began = time.monotonic()
    code, output = cluster.run(*arguments(places, undisturbed))
    whole_s = time.monotonic() - began
    assert code == 0, output
    assert figures(undisturbed)["drone->satellite"]["R@1"] > 50  # the patterns are easy; chance is 8 %

    cache = f"features.cache={undisturbed / 'features'}"
    job = cluster.start(*arguments(places, disturbed, cache, "run.workers=2"))
    kill_one_worker_in_a_round(cluster, job, disturbed)
    code, output = finish(job, JOB_LIMIT_S)
    assert code == 0, output
    for direction, expected in figures(undisturbed).items():
        found = figures(disturbed)[direction]
        for name in ("R@1", "R@5", "AP"):
            assert found[name] == pytest.approx(expected[name], abs=0.5), f"{direction} {name}"
    one, other = (load_bundle(folder / "bundle").adapter.state_dict() for folder in (undisturbed, disturbed))
    for name, value in one.items():  # and more than the figures, which easy patterns leave at 100
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)

    bundle = (undisturbed / "bundle/adapter.safetensors").stat().st_mtime_ns
    began = time.monotonic()
    code, output = cluster.run(*arguments(places, undisturbed))
    again_s = time.monotonic() - began
    assert code == 0, output
    assert again_s < whole_s / 2, f"{again_s:.0f} s, the whole job {whole_s:.0f} s"
    assert (undisturbed / "bundle/adapter.safetensors").stat().st_mtime_ns == bundle

    code, output = cluster.run(*arguments(places, undisturbed, "run.seed=1"))
    assert code != 0
    assert "holds a run of another configuration (run.seed was 0, now 1)" in output
    assert "Traceback" not in output


def test_nobody_without_the_token_is_let_in(cluster: Cluster) -> None:
    file = cluster.folder / ".ray" / "auth_token"
    assert file.stat().st_mode & 0o077 == 0
    assert list_jobs(cluster, file.read_text())[0] == 0
    code, output = list_jobs(cluster, "0" * 64)
    assert code != 0
    assert "authentication token is invalid" in output


def list_jobs(cluster: Cluster, token: str) -> tuple[int, str]:
    address = f"http://127.0.0.1:{cluster.environment['CVGL_RAY_DASHBOARD_PORT']}"
    found = subprocess.run(
        ["ray", "job", "list", "--address", address],
        env=cluster.environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return found.returncode, found.stdout
