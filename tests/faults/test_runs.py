"""Whole runs, on a cluster of their own or on one that they join, are interrupted and started again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import awaited, below, checkpoints, end, finish, named, run, start
from tiny import PLACES, SMALL, write_places

from cvgl_ray.bundle import load_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 30
# One image a batch and a part a batch: a run is interrupted amid many of them.
EVERY_BATCH = "import cvgl_ray.features.collecting as collecting; collecting.SECONDS_PER_PART = 0.0"
GO_ON = "start the same command again to go on"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"), [f"{number:04d}" for number in range(PLACES)])


def arguments(command: str, places: Path, output: Path, *more: str) -> list[str]:
    settings = (
        f"dataset.root={places}",
        *SMALL,
        "features.batch_size=1",
        f"mstep.rounds={ROUNDS}",
        "mstep.steps_per_round=10",
        *more,
    )
    return [command, "--output", str(output), *(part for setting in settings for part in ("--set", setting))]


def parts(output: Path) -> list[Path]:
    return sorted(output.glob("features/*/*/part-*.parquet"))


def rows(output: Path) -> dict[str, bytes]:
    """Each image's feature by its digest; an image stored twice fails."""
    tables = [pq.ParquetFile(part).read() for part in parts(output)]
    table = pa.concat_tables(tables).select(["view", "digest", "feature"]).to_pylist()
    found = {
        f"{row['view']} {row['digest']}": np.array(row["feature"], np.float16).tobytes() for row in table
    }
    assert len(found) == len(table)
    return found


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL the driver alone; the cluster that it started must end with it."""
    started = [number for number, _ in below(process.pid)]
    assert started
    process.kill()
    process.communicate()
    awaited(lambda: not any(alive(number) for number in started), "the end of the driver's processes")


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interrupted(process: subprocess.Popen[str]) -> None:
    """It ended as an interrupted run must: exit code 1, one sentence."""
    code, _, err = finish(process)
    assert code == 1, err
    assert f"cvgl-ray: interrupted; {GO_ON}\n" in err, err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def undisturbed(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run that nobody disturbed, though its ports were looked at."""
    output = tmp_path_factory.mktemp("undisturbed")
    process = start(*arguments("train", places, output))
    try:
        awaited(lambda: checkpoints(output), "the first round")
        (output / "listening.txt").write_text("\n".join(listening(process.pid)))
        (output / "commands.txt").write_text("\n".join(command for _, command in below(process.pid)))
        (output / "session.txt").write_text(os.path.realpath("/tmp/ray/session_latest"))
        code, _, err = finish(process)
        assert code == 0, err
        yield output
    finally:
        end(process)


def listening(ancestor: int) -> list[str]:
    """ADDRESS:PORT of all TCP sockets on which a process's descendants listen."""
    inodes = set()
    for number, _ in below(ancestor):
        for descriptor in Path(f"/proc/{number}/fd").glob("*"):
            try:
                inodes.add(os.readlink(descriptor))
            except OSError:  # closed meanwhile
                continue
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in inodes:
                address, port = local.split(":")
                words = np.frombuffer(bytes.fromhex(address), ">u4").astype("=u4").tobytes()
                found.add(f"{socket.inet_ntop(family, words)}:{int(port, 16)}")
    return sorted(found)


def test_a_run_killed_terminated_and_interrupted_ends_as_the_undisturbed_one(
    places: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = arguments("train", places, output)

    process = start(*command, prelude=EVERY_BATCH)
    try:
        awaited(lambda: parts(output), "a part")
        kill(process)
        assert 0 < len(parts(output)) < len(rows(undisturbed))

        process = start(*command, address=cluster)
        awaited(lambda: checkpoints(output), "a round")
        process.terminate()
        interrupted(process)
        before = checkpoints(output)
        assert before

        process = start(*command)
        awaited(lambda: set(checkpoints(output)) - set(before), "another round")
        assert checkpoints(output)[0] in before  # the first round was not done again
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C
        interrupted(process)
        assert not (output / "bundle").exists()
        (output / "train/checkpoint_manager_snapshot.json").write_text("")  # what an unlucky kill leaves

        since = time.time_ns()
        process = start(*command, address=cluster)
        awaited(lambda: (output / "catalog.parquet").stat().st_mtime_ns > since, "the first files")
        code, _, err = run(command, address=cluster)  # meanwhile
        assert (code, err.count("\n")) == (2, 1), err
        assert "another run is writing to" in err
        code, _, err = finish(process)
        assert code == 0, err
    finally:
        end(process)
    assert rows(output) == rows(undisturbed)
    for name in ("bundle/adapter.safetensors", "bundle/metrics.json", "metrics.json"):
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes()
    assert load_bundle(output / "bundle").config == load_bundle(undisturbed / "bundle").config


def test_an_extraction_survives_the_loss_of_its_actors(
    places: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    process = start(*arguments("extract", places, tmp_path), prelude=EVERY_BATCH, address=cluster)
    try:
        awaited(lambda: parts(tmp_path), "a part")
        victims = named("MapWorker")
        assert victims
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        code, out, err = finish(process)
        assert code == 0, err
        assert f"features: {len(rows(undisturbed))} extracted" in out
    finally:
        end(process)
    assert rows(tmp_path) == rows(undisturbed)


def test_a_full_disk_is_one_sentence_and_costs_nothing(
    places: Path, undisturbed: Path, cluster: str, small_disk: Path
) -> None:
    more = (f"features.cache={undisturbed / 'features'}", "run.max_failures=0")
    command = arguments("train", places, small_disk / "run", *more)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 200 * 2**10))
    code, _, err = run(command, address=cluster)
    assert code == 1, err
    assert "No space left on device" in err
    assert GO_ON in err
    assert "Traceback" not in err
    kept = (small_disk / "run/run.json").read_bytes()
    ballast.unlink()
    code, _, err = run(command, address=cluster)
    assert code == 0, err
    assert (small_disk / "run/run.json").read_bytes() == kept
    name = "bundle/adapter.safetensors"
    assert (small_disk / "run" / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_cluster_started_here_listens_on_the_loopback_alone(undisturbed: Path) -> None:
    sockets = (undisturbed / "listening.txt").read_text().split()
    assert len(sockets) > 3  # of Ray's control store, its nodes' and the dashboard's
    assert not [name for name in sockets if not name.startswith(("127.0.0.1:", "::1:", "::ffff:127.0.0.1:"))]


def test_the_token_is_in_no_log_and_on_no_command_line(undisturbed: Path) -> None:
    token = (Path.home() / ".ray/auth_token").read_bytes().strip()
    session = Path((undisturbed / "session.txt").read_text())
    files = [path for folder in (session, undisturbed) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if token in path.read_bytes()] == []
