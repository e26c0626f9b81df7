"""What a flight has taught about photos and a map, as files: the cells' adapter and what it depends on."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from cvgl_ray.alignment.photo_adapter import CellAdapter, with_principal
from cvgl_ray.config import Backbone, Cells
from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import file_digest, replacing, standing

FORMAT = 1
KIND = "cells"
ARRAYS = "adapter.safetensors"
FEW_CELLS = 2_000  # of photos: of fewer, a bundle's mean is better than their own


class CellBundle(NamedTuple):
    """An adapter of cells, the configuration that it was learned with, and the recipe of its cells."""

    adapter: CellAdapter
    backbone: Backbone
    cells: Cells
    recipe: dict[str, Any]


def save_cell_bundle(folder: Path, bundle: CellBundle) -> None:
    """Write a bundle whole, replacing one that is there."""
    adapter = bundle.adapter
    arrays = {f"mean/{name}": mean.contiguous() for name, mean in adapter.means.items()}
    arrays |= {"attenuation": adapter.attenuation.contiguous(), "projection": adapter.projection.contiguous()}
    content = safetensors.torch.save(arrays)
    description = {
        "format": FORMAT,
        "kind": KIND,
        "digest": file_digest(content),
        "config": {
            "backbone": bundle.backbone.model_dump(mode="json"),
            "cells": bundle.cells.model_dump(mode="json"),
        },
        "recipe": bundle.recipe,
    }
    with replacing(folder) as new:
        (new / ARRAYS).write_bytes(content)
        (new / "config.json").write_text(json.dumps(description, indent=2) + "\n")


def load_cell_bundle(folder: Path) -> CellBundle:
    """Read a bundle. Raises InputError where the folder is none, or is one of `cvgl-ray train`."""
    folder = standing(folder)
    try:
        description = json.loads((folder / "config.json").read_text())
        if description.get("kind") != KIND:
            raise InputError(
                f"bundle {folder} was not made by `cvgl-ray localize --map`: give one that was, or leave"
                " --bundle out"
            )
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, expected {FORMAT}")
        content = (folder / ARRAYS).read_bytes()
        if file_digest(content) != description["digest"]:
            raise ValueError(f"{ARRAYS} is damaged")
        arrays = safetensors.torch.load(content)
        sections = description["config"]
        means = {
            name.removeprefix("mean/"): mean for name, mean in arrays.items() if name.startswith("mean/")
        }
        return CellBundle(
            CellAdapter(means, arrays["attenuation"], arrays["projection"]),
            Backbone.model_validate(sections["backbone"]),
            Cells.model_validate(sections["cells"]),
            description["recipe"],
        )
    except InputError:
        raise
    except OSError as error:
        name = Path(error.filename).name
        raise InputError(f"{folder} is no bundle: {name}: {error.strerror}; give DIR/bundle") from error
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise InputError(f"bundle {folder} cannot be read ({error}); localise a flight again") from error


def check_recipe(bundle: CellBundle, recipe: dict[str, Any]) -> None:
    """Raise InputError where cells are of another kind than those that the bundle was learned on."""
    if bundle.recipe != recipe:
        raise InputError(
            "--bundle was learned on other cells than are made here; use the backbone, its weights and the"
            f" cells.layer that it was learned with ({bundle.backbone.name})"
        )


def known(learned: CellAdapter, samples: Sequence[tuple[str, torch.Tensor]], channels: int) -> CellAdapter:
    """The adapter of another flight for the cells of this one: its attenuation, about their own means.

    samples: see flight.cell_samples.
    """
    few = {name for name, rows in samples if len(rows) < FEW_CELLS and name in learned.means}
    means = {name: learned.means[name] if name in few else rows.mean(dim=0) for name, rows in samples}
    return with_principal(replace(learned, means=means), samples, channels)
