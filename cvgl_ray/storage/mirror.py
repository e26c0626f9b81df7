"""A run folder kept under a URI: fetched into a folder of this machine, brought back as it changes."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import resolve
from cvgl_ray.storage.tree import files_below

log = logging.getLogger(__name__)

SEND_EVERY_S = 10.0  # what a run that is killed has lost at most, besides what was on its way
LEASE = ".lease"  # renewed as often by the run that holds the URI
LEASE_PATIENCE_S = 3 * SEND_EVERY_S  # not renewed for so long: its run has ended
COMPLETE = ".complete"  # says that everything else is there, so it goes last; other hidden files stay here
CHECKPOINTS = "train"  # Ray Train itself brings them to the URI
ASIDE = "damaged_"  # begins the name of a checkpoint that was set aside here, which is sent
LARGE = ("features", "variants", "cells", CHECKPOINTS)  # fetched when asked for
_FAULTS = (OSError, pa.ArrowException)


class Mirror:
    """A folder of this machine that stands for one under a URI."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self._filesystem, base = resolve(uri)
        self._base = base.rstrip("/")
        self._sent: dict[str, tuple[int, int]] = {}
        self._owner, self._renewed = uuid.uuid4().hex, 0.0
        self._sending = threading.Lock()

    def fetch(self, below: str = "") -> None:
        """Bring here the files below a folder of the URI; "": all but the LARGE folders'."""
        for name, path in self._files(below):
            parts = PurePosixPath(name).parts
            if not _stays(parts) and (below or parts[0] not in LARGE):
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                hidden = target.with_name(f".{target.name}.part")
                fs.copy_files(path, str(hidden), source_filesystem=self._filesystem)
                self._sent[name] = _state(hidden)  # before it is seen, so that it is not sent back
                hidden.rename(target)

    def prune(self, below: str) -> None:
        """Remove the files below a folder of the URI that are not here; what was renamed is there first."""
        self.beat()
        for name, path in self._files(below):
            if not (self.folder / name).exists():
                self._filesystem.delete_file(path)

    def _files(self, below: str) -> Iterator[tuple[str, str]]:
        """Files below a folder of the URI: their names as they are here, and their paths there."""
        for file in files_below(self._filesystem, f"{self._base}/{below}"):
            yield f"{below}/{file.name}".lstrip("/"), file.path

    def beat(self) -> None:
        """Bring to the URI what changed here since it was last there, and renew the lease.

        Raises InputError where another run has taken the lease.
        """
        with self._sending:
            self._beat()

    def _beat(self) -> None:
        self._renew()
        files = files_below(fs.LocalFileSystem(), str(self.folder))
        for file in sorted(files, key=lambda file: (file.name.endswith(COMPLETE), file.name)):
            state, parts = (file.modified_ns, file.size), PurePosixPath(file.name).parts
            if self._sent.get(file.name) != state and not (_stays(parts) or _by_ray(parts)):
                self._write(file.name, file.path)
                self._sent[file.name] = state
                if time.monotonic() - self._renewed > SEND_EVERY_S:
                    self._renew()

    def _write(self, name: str, path: str) -> None:
        folder, _, last = f"{self._base}/{name}".rpartition("/")
        self._filesystem.create_dir(folder, recursive=True)
        whole = self._filesystem.type_name not in ("local", "hdfs")  # stores show an object when it is whole
        written = f"{folder}/{last}" if whole else f"{folder}/.{last}.part"
        fs.copy_files(path, written, destination_filesystem=self._filesystem, use_threads=False)
        if not whole:
            self._filesystem.move(written, f"{folder}/{last}")

    def take(self) -> None:
        """Become the URI's one writer; wait where the last one left without saying so. Raises InputError."""
        before = self._lease()
        if before is not None:
            log.info("%s was left by a run that may still be at work; waiting to see", self.uri)
            time.sleep(LEASE_PATIENCE_S)
            if self._lease() not in (before, None):
                raise InputError(
                    f"another run is writing to {self.uri}; wait for it or choose another --output"
                )
        self._filesystem.create_dir(self._base, recursive=True)
        self._write_lease()

    def close(self) -> None:
        """Send the last changes and leave the URI to the next run."""
        self.beat()
        self._filesystem.delete_file(f"{self._base}/{LEASE}")

    def _lease(self) -> str | None:
        try:
            with self._filesystem.open_input_stream(f"{self._base}/{LEASE}") as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return None

    def _renew(self) -> None:
        if not (self._lease() or self._owner).startswith(self._owner):
            raise InputError(
                f"another run has begun to write to {self.uri}; what this one could not bring there is in "
                f"{self.folder}"
            )
        self._write_lease()

    def _write_lease(self) -> None:
        self._renewed = time.monotonic()
        with self._filesystem.open_output_stream(f"{self._base}/{LEASE}") as stream:
            stream.write(f"{self._owner} {self._renewed}".encode())


@contextmanager
def mirrored(uri: str) -> Iterator[Mirror]:
    """A folder of this machine with what lies under the URI, brought back during the block and at its end.

    Raises InputError where the URI cannot be reached or written, or another run writes there.
    """
    folder = Path(tempfile.mkdtemp(prefix="cvgl-ray-"))
    try:
        mirror = Mirror(uri, folder)
        with _explained(f"output {uri} cannot be used", "check the address and your access"):
            mirror.take()
            mirror.fetch()
    except BaseException:
        shutil.rmtree(folder)
        raise
    try:
        with _kept_up(mirror):
            yield mirror
    except BaseException as error:
        try:
            _finish(mirror)
        except InputError as unsent:
            if isinstance(error, KeyboardInterrupt):
                raise
            log.warning("%s", unsent)
        if isinstance(error, InputError):  # of files that a user knows by their URI
            raise InputError(str(error).replace(str(folder), uri)) from error
        raise
    _finish(mirror)


def _finish(mirror: Mirror) -> None:
    with _explained(f"{mirror.uri} lacks the last files of this run", f"copy them from {mirror.folder}"):
        mirror.close()
    shutil.rmtree(mirror.folder)


@contextmanager
def _kept_up(mirror: Mirror) -> Iterator[None]:
    """A thread that brings changes to the URI now and then."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(SEND_EVERY_S):
            try:
                mirror.beat()
            except InputError:  # another run took over: this one need not go on, and its last beat says why
                os.kill(os.getpid(), signal.SIGINT)
                return
            except _FAULTS as error:
                log.warning("%s cannot be written just now (%s); trying again", mirror.uri, _reason(error))

    thread = threading.Thread(target=work, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _explained(found: str, advice: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise InputError(f"{found} ({_reason(error)}); {advice}") from error


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0]


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _stays(parts: tuple[str, ...]) -> bool:
    """Whether a path is not carried: locks and half-written files, or a name that would leave the folder."""
    return any(part.startswith(".") and part != COMPLETE for part in parts)


def _by_ray(parts: tuple[str, ...]) -> bool:
    return parts[0] == CHECKPOINTS and not parts[1].startswith(ASIDE)
