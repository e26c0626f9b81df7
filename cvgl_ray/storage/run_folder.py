"""The folder of a run: what was run there, and that only one run writes to it at a time."""

import fcntl
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cvgl_ray.config import Config
from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import write_json
from cvgl_ray.storage.filesystem import is_uri
from cvgl_ray.storage.mirror import Mirror, mirrored

RUN_FILE = "run.json"
# What may differ between two runs into one folder: resources and places, nothing that changes the result.
_FREE = {"run": {"workers", "min_workers", "gpu", "max_failures"}, "features": {"actors", "cache"}}
_PACKAGES = ("cvgl-ray", "ray", "torch", "timm", "faiss-cpu", "numpy", "pyarrow")


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


def claim(output: Path, config: Config, tune: Mapping[str, Any] | None = None) -> None:
    """Record the resolved configuration, versions and command; refuse a folder of another configuration.

    tune: of a sweep, how the configuration is varied (JSON values).
    """
    path = output / RUN_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text())
            recorded, varied = Config.model_validate(found["config"]), found.get("tune", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read; remove the folder or choose another --output"
            ) from error
        difference = _difference(
            {**recorded.model_dump(exclude=_FREE), "tune": varied},
            {**config.model_dump(exclude=_FREE), "tune": tune or {}},
        )
        if difference:
            raise InputError(
                f"{output} holds a run of another configuration ({difference}); choose another --output, "
                "or remove the folder to start over"
            )
        return
    tree = {"config": config.model_dump(mode="json"), **({"tune": tune} if tune else {})}
    write_json(path, {**tree, **_provenance()})


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """The first key whose value differs, with both values; empty where none does."""
    for key in {**old, **new}:
        was, value = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(value, dict):
            inner = _difference(was, value, f"{prefix}{key}.")
            if inner:
                return inner
        elif was != value:
            return f"{prefix}{key} was {was!r}, now {value!r}"
    return ""


def _provenance() -> dict[str, Any]:
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "revision": _revision(),
    }


def _version(package: str) -> str | None:
    """The installed version; none where the code was shipped without being installed, as Ray jobs do."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The git revision of this code; none outside a checkout, or on a machine without git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return found.stdout.strip() or None
