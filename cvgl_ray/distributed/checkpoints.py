"""A training's checkpoints on disk, and where a run that was interrupted goes on.

Ray Train keeps account of its checkpoints in a file of its own, which a process killed at the wrong moment
leaves half-written. A new run therefore trusts no account: it takes the newest checkpoint that is whole.
"""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch

_NAME = "learner.pt"


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write a learner's state into an existing folder."""
    stream = io.BytesIO()
    torch.save(state, stream)
    (folder / _NAME).write_bytes(stream.getvalue())  # where the disk is full, torch raises no OSError


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state in a folder; raises whatever its readers do where it is missing, half-written or damaged."""
    path = folder / _NAME
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # torch.load itself compares no checksums
    if damaged:
        raise zipfile.BadZipFile(f"{path}: {damaged} does not match its checksum")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def last_state(root: Path) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint of the training in `root`, None without one.

    All else in `root` is removed, so that Ray Train starts from this state and nothing else.
    """
    state, kept = None, None
    for folder in sorted(root.glob("checkpoint_*"), reverse=True):  # their names are times
        try:
            state, kept = load_checkpoint(folder), folder
        except Exception:  # zip, pickle and file readers each have their own; an older one will do
            continue
        break
    for path in root.glob("*"):
        if path.is_dir() and path != kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)
    return state


def hand_over(source: Path, target: Path) -> None:
    """Let the training in `target` start from the last state of the one in `source`, which does not run."""
    state = last_state(source)
    assert state is not None
    shutil.rmtree(target, ignore_errors=True)
    folder = target / "checkpoint_0"  # before all times
    folder.mkdir(parents=True)
    save_checkpoint(state, folder)


def latest_state(start: ray.ObjectRef) -> dict[str, Any] | None:
    """Of the last round that these workers or their predecessors reported, else what the run started from."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        state: dict[str, Any] | None = ray.get(start)
        return state
    with checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder))
