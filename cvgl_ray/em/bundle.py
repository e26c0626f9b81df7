"""What a run leaves: adapter.safetensors, config.json, pseudo_labels.parquet, metrics.json, in one folder.

The folder appears whole or not at all, and loading it never executes anything.
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

FORMAT = 1


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
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    safetensors.torch.save_file(bundle.adapter.state_dict(), temporary / "adapter.safetensors")
    description = {
        "format": FORMAT,
        "dimension": bundle.adapter.dimension,
        "width": bundle.adapter.width,
        "config": bundle.config.model_dump(mode="json"),
        "recipes": bundle.recipes,
    }
    (temporary / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    (temporary / "metrics.json").write_text(json.dumps(bundle.scores, indent=2) + "\n")
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    names = ("query", "reference", "cosine")
    types = (pa.string(), pa.string(), pa.float32())
    table = pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})
    pq.write_table(table, temporary / "pseudo_labels.parquet")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle, its adapter in evaluation mode on the CPU.

    Raises InputError where the folder is no bundle, or its adapter does not fit its description.
    """
    try:
        description = json.loads((folder / "config.json").read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, expected {FORMAT}")
        scores = json.loads((folder / "metrics.json").read_text())
        state = safetensors.torch.load((folder / "adapter.safetensors").read_bytes())
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
