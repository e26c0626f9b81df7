"""What a run leaves: adapter.safetensors, config.json, pseudo_labels.parquet, metrics.json, in one folder.

The folder appears whole or not at all, and loading it never executes anything. While one bundle replaces
another, a moment passes in which the folder is missing and the earlier one lies beside it as `.<name>.old`:
a process killed right then leaves it there, and it is read from there.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from safetensors import SafetensorError

from cvgl_ray.config import Config
from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.build import build_adapter
from cvgl_ray.errors import InputError
from cvgl_ray.files import file_digest, sync

FORMAT = 2


@dataclass(frozen=True)
class Bundle:
    """An adapter and what it was trained with.

    recipes: by view, what its frozen features depend on; scores: label-free scores of the last E-step.
    """

    adapter: ViewCentred
    config: Config
    recipes: dict[str, Any]
    scores: dict[str, float]


def save_bundle(folder: Path, bundle: Bundle, pairs: list[tuple[str, str, float]]) -> None:
    """Write a bundle, replacing one that is there.

    pairs: the last round's pseudo-labels (query image_id, reference image_id, cosine).
    """
    weights = safetensors.torch.save(bundle.adapter.state_dict())
    description = {
        "format": FORMAT,
        "dimension": bundle.adapter.dimension,
        "width": bundle.adapter.width,
        "adapter_digest": file_digest(weights),
        "config": bundle.config.model_dump(mode="json"),
        "recipes": bundle.recipes,
    }
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    (new / "adapter.safetensors").write_bytes(weights)
    (new / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    (new / "metrics.json").write_text(json.dumps(bundle.scores, indent=2) + "\n")
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    names = ("query", "reference", "cosine")
    types = (pa.string(), pa.string(), pa.float32())
    table = pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})
    pq.write_table(table, new / "pseudo_labels.parquet")
    for path in (*new.iterdir(), new):
        sync(path)
    old = _earlier(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle, its adapter in evaluation mode on the CPU.

    Raises InputError where the folder is no bundle, or its adapter does not fit its description.
    """
    if not folder.exists() and _earlier(folder).exists():
        folder = _earlier(folder)
    try:
        description = json.loads((folder / "config.json").read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, expected {FORMAT}")
        scores = json.loads((folder / "metrics.json").read_text())
        weights = (folder / "adapter.safetensors").read_bytes()
        if file_digest(weights) != description["adapter_digest"]:
            raise ValueError("adapter.safetensors is damaged: it does not match the digest in config.json")
        state = safetensors.torch.load(weights)
        config = Config.model_validate(description["config"])
        adapter = build_adapter(config, description["dimension"])
        adapter.load_state_dict(state)
        recipes = description["recipes"]
    except OSError as error:
        name = Path(error.filename).name
        raise InputError(f"{folder} is no bundle: {name}: {error.strerror}; give DIR/bundle") from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        missing = isinstance(error, KeyError)
        reason = f"config.json has no key {error}" if missing else " ".join(str(error).split())
        raise InputError(f"bundle {folder} cannot be read ({reason}); train again") from error
    return Bundle(adapter.eval(), config, recipes, scores)


def _earlier(folder: Path) -> Path:
    """Where a bundle waits while another takes its place."""
    return folder.with_name(f".{folder.name}.old")
