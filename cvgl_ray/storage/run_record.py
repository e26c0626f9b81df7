"""run.json: which command made a folder, with which configuration, versions and code; it claims the folder.

A command claims the sections that it reads. An extraction claims its data set alone, and anything may
follow it; no other two commands share a folder.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cvgl_ray.config import Config
from cvgl_ray.config.differences import first_difference
from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import write_json

RUN_FILE = "run.json"
_OF_MAPS = ("cells", "prior")
# What each command reads. An extraction reads more than it claims: features of any recipe lie side by side.
_READ = {
    "extract": ("dataset", "backbone", "pretransform", "features", "alignment", "run"),
    "evaluate": ("dataset", "backbone", "pretransform", "features", "alignment", "retrieval", "run"),
    "train": tuple(name for name in Config.model_fields if name not in _OF_MAPS),
    "tune": tuple(name for name in Config.model_fields if name not in _OF_MAPS),
    "localize": ("backbone", *_OF_MAPS, "run"),
}
_CLAIMED = _READ | {"extract": ("dataset",)}
# What may differ between two runs into one folder: resources and places, nothing that changes the result.
# Of a checkpoint's file the content is claimed.
_FREE = {
    "run": {"workers", "min_workers", "gpu", "max_failures"},
    "features": {"actors", "cache", "verify"},
    "backbone": {"checkpoint"},
}
_WEIGHTS = "backbone.checkpoint"
_PACKAGES = ("cvgl-ray", "ray", "torch", "timm", "faiss-cpu", "numpy", "pyarrow")


def stage_of(output: Path) -> str:
    """The command that a folder's run.json tells of; "" without one. Raises InputError where it is broken."""
    return str(_read(output).get("stage", "train")) if (output / RUN_FILE).exists() else ""


def check_claim(output: Path, stage: str, config: Config, more: Mapping[str, Any] | None = None) -> None:
    """Raise InputError where the folder holds a run of another command or configuration.

    stage: a command of `_READ`; more: what else makes two runs different (JSON values).
    """
    if not (output / RUN_FILE).exists():
        return
    recorded = _read(output)
    earlier = recorded.get("stage", "train")
    if "extract" not in (stage, earlier) and stage != earlier:
        raise InputError(f"{output} was made by `cvgl-ray {earlier}`; choose another --output for `{stage}`")
    sections = [name for name in _CLAIMED[earlier] if name in _CLAIMED[stage]]
    was, now = _claim(recorded["config"], sections), _claim(config, sections)
    if stage == earlier:
        was, now = was | recorded["more"], now | _identity(config, more)
        if not (_WEIGHTS in was and _WEIGHTS in now):  # the file is not there any more, or was not looked at
            was.pop(_WEIGHTS, None), now.pop(_WEIGHTS, None)
    difference = first_difference(was, now)
    if difference:
        raise InputError(
            f"{output} holds a run of another configuration ({difference}); choose another --output, "
            "or remove the folder to start over"
        )


def claim(output: Path, stage: str, config: Config, more: Mapping[str, Any] | None = None) -> None:
    """Check as `check_claim`, then record the configuration that the stage reads, versions and command."""
    check_claim(output, stage, config, more)
    if (output / RUN_FILE).exists() and (stage == "extract" or stage_of(output) == stage):
        return
    tree = {"stage": stage, "config": config.model_dump(mode="json", include=set(_READ[stage]))}
    write_json(output / RUN_FILE, {**tree, "more": _identity(config, more), **_provenance()})


def _claim(config: Config, sections: list[str]) -> dict[str, Any]:
    return config.model_dump(include=set(sections), exclude=_FREE)


def _identity(config: Config, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """What makes a run another one besides its configuration: which weights, and `more`."""
    path = Path(config.backbone.checkpoint)
    if not path.is_file():
        return dict(more or {})
    with path.open("rb") as file:
        return {_WEIGHTS: hashlib.file_digest(file, "sha256").hexdigest()[:16], **(more or {})}


def _read(output: Path) -> dict[str, Any]:
    """run.json with its configuration validated; sections that its stage did not read have their defaults."""
    path = output / RUN_FILE
    try:
        found = json.loads(path.read_text())
        config = Config.model_validate(found["config"])
        if found.get("stage", "train") not in _READ:
            raise ValueError("no such stage")
        found.setdefault("more", {"tune": found["tune"]} if "tune" in found else {})
        return {**found, "config": config, "more": dict(found["more"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; remove the folder or choose another --output") from error


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
