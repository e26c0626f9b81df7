"""Finding and killing the processes of a run, by what Linux knows of them."""

import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tiny import QUICK_RAY

Found = TypeVar("Found")


def below(ancestor: int) -> Iterator[tuple[int, str]]:
    """(process id, command line) of every living process that descends from `ancestor`."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
    for process in parents:
        above: int | None = process
        while above is not None and above != ancestor:
            above = parents.get(above)
        if above is not None and process != ancestor:
            yield process, commands.get(process, "")


def named(part: str, ancestor: int | None = None) -> list[int]:
    """Ray workers below a process (this one) whose title holds `part`, such as IndexActor or TrainWorker."""
    root = os.getpid() if ancestor is None else ancestor
    return [process for process, command in below(root) if command.startswith("ray::") and part in command]


def awaited(condition: Callable[[], Found], what: str, limit_s: float = 240.0) -> Found:
    """The condition's first true value; AssertionError after the limit."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {limit_s} s")


def checkpoints(output: Path) -> list[str]:
    # glob's own, for which a folder that is removed meanwhile is no error.
    found = glob.glob("train/checkpoint_*/learner-*.pt", root_dir=output)
    return sorted(Path(path).parent.name for path in found)


def start(*arguments: str | Path, prelude: str = "", address: str = "") -> subprocess.Popen[str]:
    """`cvgl-ray ARGUMENTS` in a process group of its own, as a shell starts it; `prelude` runs before.

    address: of the cluster to join, else it starts one.
    """
    code = f"{prelude}\nfrom cvgl_ray.cli import main\nmain()"
    joined = {"RAY_AUTH_MODE": "token"} if address else {}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), *(["--address", address] if address else [])],
        env=os.environ | QUICK_RAY | joined,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], limit_s: float = 300.0) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; the process is killed at the limit."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        end(process)
        out, err = process.communicate()
        raise AssertionError(f"no end after {limit_s} s:\n{out[-2000:]}\n{err[-4000:]}") from None
    return process.returncode, out, err


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started."""
    for number in [*(number for number, _ in below(process.pid)), process.pid]:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def run(arguments: Sequence[str | Path], **options: str) -> tuple[int, str, str]:
    return finish(start(*arguments, **options))
