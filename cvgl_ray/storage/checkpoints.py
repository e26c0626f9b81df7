"""A training's checkpoints on disk, and where a run that was interrupted goes on.

A checkpoint's file is named after the digest of its content, so that damage is told from a disk that cannot
be read just now. Reading deletes nothing: what is proven to be damaged gets another name, and what cannot be
read ends the run.
"""

import io
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import file_digest, write_atomically
from cvgl_ray.storage.mirror import ASIDE

log = logging.getLogger(__name__)

_FOLDERS, _FILES = "checkpoint_*", "learner-*.pt"


class DamagedError(Exception):
    """A checkpoint whose content is not what was written."""


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write a learner's state into an existing folder, in place of any other."""
    stream = io.BytesIO()
    torch.save(state, stream)  # straight to a disk that is full it would raise no OSError
    content, others = stream.getvalue(), list(folder.glob(_FILES))
    path = folder / f"learner-{file_digest(content)}.pt"
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    for other in others:
        if other != path:
            other.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state in a folder, None where no file of a state is there.

    Raises DamagedError where its digest does not match, OSError where it cannot be read, InputError where it
    is whole and yet no state of this version's.
    """
    files = sorted(folder.glob(_FILES), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return None
    path = files[-1]  # its writer may have been killed before it removed the one before
    content = path.read_bytes()
    if path.stem != f"learner-{file_digest(content)}":
        raise DamagedError(f"{path} does not match its digest")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zip and pickle readers each have their own
        raise InputError(
            f"{path} is no checkpoint that this version reads ({str(error).splitlines()[0]}); choose another "
            "--output, or remove the folder that holds it"
        ) from error
    return state


def last_state(root: Path) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint of the training in `root`, None without one.

    Newer ones that are damaged are set aside as `damaged_...`. Raises OSError where one cannot be read, and
    InputError for one of another version.
    """
    for folder in _newest_first(root):
        if (folder / "learner.pt").exists():
            raise InputError(
                f"{folder} is a checkpoint of an earlier version of cvgl-ray; choose another --output, or "
                f"remove {root} to start the training over"
            )
        try:
            state = load_checkpoint(folder)
        except DamagedError as error:
            aside = folder.with_name(ASIDE + folder.name)
            log.warning("%s: it is set aside as %s, and an earlier one is taken", error, aside.name)
            folder.rename(aside)
            continue
        if state is not None:
            return state
    return None


def keep_newest(root: Path) -> None:
    """Leave the newest checkpoint, which `last_state` has read, and what was set aside; remove all else.

    So Ray Train starts from it and from nothing else, its own account of checkpoints among that: a process
    killed at the wrong moment leaves it half-written.
    """
    kept = next((folder for folder in _newest_first(root) if any(folder.glob(_FILES))), None)
    for path in root.glob("*"):
        if path.is_file():
            path.unlink()
        elif path != kept and not path.name.startswith(ASIDE):
            shutil.rmtree(path)


def _newest_first(root: Path) -> list[Path]:
    return sorted(root.glob(_FOLDERS), reverse=True)  # their names are times
