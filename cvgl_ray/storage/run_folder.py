"""The folder of a run: only one run writes to it at a time, and it may be kept under a URI."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import is_uri
from cvgl_ray.storage.mirror import Mirror, mirrored


@dataclass(frozen=True)
class RunFolder:
    """Where a run lives.

    path: on this machine, where it is written; address: where it is kept and checkpoints go, the same path or
    the URI that `mirror` brings it to.
    """

    path: Path
    address: str
    mirror: Mirror | None = None

    def fetch(self, below: str) -> None:
        """Bring what an earlier run left in a large folder, where it is kept elsewhere."""
        if self.mirror is not None:
            self.mirror.fetch(below)

    def prune(self, below: str) -> None:
        """Remove where it is kept, if that is elsewhere, what was removed from a large folder here."""
        if self.mirror is not None:
            self.mirror.prune(below)


@contextmanager
def opened(output: Path | str) -> Iterator[RunFolder]:
    """A run's folder, a path or any URI that pyarrow.fs opens, for this process alone.

    Raises InputError where it cannot be written or another run holds it.
    """
    if is_uri(str(output)):
        with mirrored(str(output)) as mirror, locked(mirror.folder) as folder:
            yield RunFolder(folder, str(output), mirror)
    else:
        with locked(Path(output)) as folder:
            yield RunFolder(folder, str(folder.resolve()))


@contextmanager
def locked(output: Path) -> Iterator[Path]:
    """Hold the folder, made if need be, for this process alone.

    Raises InputError where it cannot be written or another run holds it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"output folder {output} cannot be written ({error.strerror}); choose another"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run is writing to {output}; wait for it or choose another folder"
            ) from error
        yield output
