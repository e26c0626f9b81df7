"""Trainings submitted as jobs to a cluster of separate processes: nothing that stops one loses its work."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import PLACES, SMALL, write_places

LOCAL = Path(__file__).parents[2] / "cluster" / "local.sh"
ROUNDS = 40  # enough that a worker dies, or a job is stopped, in the middle of them
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

    def training_workers(self) -> tuple[int, ...]:
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
        return tuple(found)


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


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job of two workers that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed")
    code, printed = cluster.run(*arguments(places, output))
    assert code == 0, printed
    assert figures(output)["drone->satellite"]["R@1"] > 50  # the patterns are easy; chance is 8 %
    return output


def arguments(places: Path, output: Path | str, *more: str) -> list[str]:
    """Of a submission: the small configuration with many rounds on two workers."""
    settings = (f"dataset.root={places}", *SMALL, f"mstep.rounds={ROUNDS}", "run.workers=2", *more)
    return ["submit", "--output", str(output), *(part for setting in settings for part in ("--set", setting))]


def figures(output: Path) -> dict[str, Any]:
    return json.loads((output / "metrics.json").read_text())["adapted"]


def assert_same_result(found: Path, expected: Path) -> None:
    for direction, figure in figures(expected).items():
        for name in ("R@1", "R@5", "AP"):
            assert figures(found)[direction][name] == pytest.approx(figure[name], abs=0.5)
    # The figures of patterns so easy are 100 either way, so the adapters tell more: no bit differs.
    name = "bundle/adapter.safetensors"
    assert (found / name).read_bytes() == (expected / name).read_bytes()


def wait_for_a_round(
    cluster: Cluster, job: subprocess.Popen[str], output: Path, beside: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """The two training workers, none of them of `beside`, once a round is done and more are to come."""
    limit = time.monotonic() + JOB_LIMIT_S
    while True:
        workers = cluster.training_workers()
        if len(workers) == 2 and not set(workers) & set(beside) and any(output.glob("train/checkpoint_*")):
            assert not (output / "metrics.json").exists()
            return workers
        if job.poll() is not None or time.monotonic() > limit:
            job.kill()
            pytest.fail(f"no round was seen:\n{job.communicate()[0][-4000:]}")
        time.sleep(0.02)


def test_a_killed_training_worker_changes_no_bit(
    cluster: Cluster, places: Path, undisturbed: Path, tmp_path: Path
) -> None:
    cache = f"features.cache={undisturbed / 'features'}"
    job = cluster.start(*arguments(places, tmp_path, cache))
    workers = wait_for_a_round(cluster, job, tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    wait_for_a_round(cluster, job, tmp_path, workers)  # others go on from the last round
    code, printed = finish(job, JOB_LIMIT_S)
    assert code == 0, printed
    assert_same_result(tmp_path, undisturbed)


def test_a_stopped_job_goes_on_from_shared_storage(
    cluster: Cluster, places: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"  # as a URI, all that the two jobs share
    cache = f"features.cache={undisturbed / 'features'}"
    job = cluster.start(*arguments(places, f"file://{store}", cache))
    wait_for_a_round(cluster, job, store)
    _, listed = request(cluster)
    [running] = [found["submission_id"] for found in json.loads(listed) if found["status"] == "RUNNING"]
    # What `ray job stop` asks for, without the seconds that it takes to start.
    assert request(cluster, f"{running}/stop", method="POST")[0] == 200
    _, printed = finish(job, JOB_LIMIT_S)
    assert "was stopped" in printed
    assert "cvgl-ray: interrupted; start the same command again" in request(cluster, f"{running}/logs")[1]
    assert not (store / "metrics.json").exists()

    code, printed = cluster.run(*arguments(places, f"file://{store}", cache))
    assert code == 0, printed
    assert_same_result(store, undisturbed)


def test_a_finished_run_returns_at_once_and_another_configuration_is_refused(
    cluster: Cluster, places: Path, undisturbed: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(undisturbed, other)
    files = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.name != ".lock"}
    again = cluster.start(*arguments(places, undisturbed))
    refused = cluster.start(*arguments(places, other, "run.seed=1"))
    code, printed = finish(again, JOB_LIMIT_S)
    assert code == 0, printed
    assert "features:" not in printed  # it did not even look at the images
    assert files == {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.name != ".lock"}

    code, printed = finish(refused, JOB_LIMIT_S)
    assert code != 0
    assert "holds a run of another configuration (run.seed was 0, now 1)" in printed
    assert "exit code 2" in printed
    assert "Traceback" not in printed


def test_nobody_without_the_token_is_let_in(cluster: Cluster) -> None:
    assert (cluster.folder / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    assert request(cluster)[0] == 200
    code, answer = request(cluster, token="0" * 64)
    assert code in (401, 403)
    assert "authentication token" in answer


def request(cluster: Cluster, path: str = "", *, method: str = "GET", token: str = "") -> tuple[int, str]:
    """Status and answer of the job server, asked with the cluster's token or another."""
    token = token or (cluster.folder / ".ray" / "auth_token").read_text().strip()
    address = f"http://127.0.0.1:{cluster.environment['CVGL_RAY_DASHBOARD_PORT']}/api/jobs/{path}"
    asked = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
