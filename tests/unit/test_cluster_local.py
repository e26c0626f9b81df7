"""cluster/local.sh with a `ray` that only says what it was asked: no cluster is started."""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "cluster" / "local.sh"
FAKE_RAY = """#!/usr/bin/env bash
echo "$RAY_AUTH_MODE ${RAY_ADDRESS-unset} $PWD | $*" >>"$CALLS"
case $1 in
  get-auth-token) mkdir -p "$HOME/.ray"; echo secret >"$HOME/.ray/auth_token" ;;
  start)
    case "$*" in *"$FAILING"*) echo "no port is free"; exit 1 ;; esac
    echo "Ray runtime started."
    while :; do sleep 0.05; done ;;
esac
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def run(tmp_path: Path, calls: Path) -> Iterator[Run]:
    fake = tmp_path / "bin" / "ray"
    fake.parent.mkdir()
    fake.write_text(FAKE_RAY)
    fake.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "CVGL_RAY_CLUSTER": str(tmp_path / "cluster"),
        "RAY_ADDRESS": "elsewhere",
        "CALLS": str(calls),
    }

    def run(
        *arguments: str, failing: str = "nothing", cwd: Path = tmp_path, dashboard: int = 8999
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LOCAL, *arguments],
            env=environment | {"FAILING": failing, "CVGL_RAY_DASHBOARD_PORT": str(dashboard)},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    run("down")


def processes(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in sorted(folder.glob("*.pid"))]


def test_up_starts_a_head_and_two_workers_with_one_private_token(
    run: Run, tmp_path: Path, calls: Path
) -> None:
    folder = tmp_path / "cluster"
    found = run("up")
    assert found.returncode == 0, found.stderr
    starts = [line for line in calls.read_text().splitlines() if "| start" in line]
    assert len(starts) == 3
    assert all(line.startswith("token unset ") for line in starts)
    assert "--head" in starts[0]
    assert "--num-cpus=0" in starts[0]
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8999" in starts[0]
    assert all("--address=127.0.0.1:" in line for line in starts[1:])
    assert (folder / ".ray/auth_token").read_text() == "secret\n"
    assert (folder / ".ray/auth_token").stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0

    again = run("up")
    assert again.returncode == 1
    assert "already running" in again.stderr


def test_down_ends_those_processes_and_may_be_said_twice(run: Run, tmp_path: Path) -> None:
    assert run("up").returncode == 0
    ours = processes(tmp_path / "cluster")
    assert len(ours) == 3
    assert run("down").returncode == 0
    commands = [Path(f"/proc/{number}/cmdline") for number in ours]
    assert not any(command.exists() and command.read_bytes() for command in commands)  # gone, or a zombie
    assert run("down").returncode == 0


def test_down_spares_a_process_that_took_over_a_number(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    other = subprocess.Popen(["sleep", "30"])
    try:
        (folder / "head.pid").write_text(str(other.pid))
        assert run("down").returncode == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_node_that_does_not_start_takes_the_others_along(run: Run, tmp_path: Path) -> None:
    found = run("up", failing="--address")
    assert found.returncode == 1
    assert "no port is free" in found.stderr
    assert re.search(r"cluster/local.sh: worker-1 ended or did not start .*worker-1\.log", found.stderr)
    assert processes(tmp_path / "cluster") == []


@pytest.mark.parametrize("spelling", [["--output", "runs/a b"], ["--output=runs/a b"]])
def test_submit_passes_arguments_on_and_makes_the_output_absolute(
    run: Run, tmp_path: Path, calls: Path, spelling: list[str]
) -> None:
    assert run("up").returncode == 0
    assert run("submit", "--set", 'backbone.layers=["final"]', *spelling).returncode == 0
    submitted = calls.read_text().splitlines()[-1]
    assert f"{LOCAL.parents[1]} | job submit --address http://127.0.0.1:8999 --working-dir . --" in submitted
    output = " ".join(spelling).replace("runs", f"{tmp_path}/runs")
    assert submitted.endswith(f'-- cvgl-ray train --set backbone.layers=["final"] {output}')


def test_an_output_elsewhere_is_left_as_it_is(run: Run, calls: Path) -> None:
    assert run("up").returncode == 0
    assert run("submit", "--output", "s3://bucket/run").returncode == 0
    assert calls.read_text().endswith("--output s3://bucket/run\n")


def test_wrong_use_is_answered_in_one_sentence(run: Run) -> None:
    for arguments, sentence in (
        ([], "found no command, expected up, submit or down"),
        (["start"], "found start, expected up, submit or down"),
        (["submit", "--output", "x"], "no cluster runs"),
    ):
        found = run(*arguments)
        assert found.returncode == 1
        assert found.stderr.startswith("cluster/local.sh: ")
        assert sentence in found.stderr
        assert found.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named_before_anything_starts(run: Run, tmp_path: Path, calls: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = run("up", dashboard=port)
    assert found.returncode == 1
    assert found.stderr == (
        f"cluster/local.sh: port {port} of this machine is taken; choose others by CVGL_RAY_PORT "
        "(and the one after it) and CVGL_RAY_DASHBOARD_PORT\n"
    )
    assert not calls.exists()


def test_the_first_start_and_a_later_one_complain_of_nothing(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("up").stderr == ""
        assert run("down").returncode == 0
    (tmp_path / "cluster/head.log").write_text("Ray runtime started.")  # of the cluster before
    assert run("up", failing="--head").returncode == 1
