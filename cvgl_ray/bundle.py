"""What a run leaves: arrays (safetensors), config.json, pseudo_labels.parquet, metrics.json.

The folder appears whole or not at all, and loading it never executes anything. While one bundle replaces
another, a moment passes in which the folder is missing and the earlier one lies beside it as `.<name>.old`:
a process killed right then leaves it there, and it is read from there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError

from cvgl_ray.alignment.learned import Learned
from cvgl_ray.config import Backbone, Config, Retrieval
from cvgl_ray.em.adapters import ViewCentred
from cvgl_ray.em.build import build_adapter
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.matching import label_free_scores
from cvgl_ray.em.retrieval import Banks, Retriever, training_banks
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import fingerprint
from cvgl_ray.storage.files import file_digest, replacing, standing

FORMAT = 4
VIEWS = ("query", "reference")
ARRAYS = ("adapter", "bank", "trained_on")  # each a .safetensors, and "alignment" where there was one
DIRECTIONS = "directions"


@dataclass(frozen=True)
class BundledAlignment:
    """What a training learned of images that were laid on each other (see alignment.learned).

    directions [c, C]: what their cells were projected on, None where they are narrow; recipes: by view, what
    its cells depend on.
    """

    learned: Learned
    directions: torch.Tensor | None
    recipes: dict[str, Any]

    def check(self, made: Mapping[str, Any]) -> None:
        """Raise InputError unless cells are made by these recipes, of its views or of some."""
        known = {view: fingerprint(recipe) for view, recipe in self.recipes.items()}
        other = sorted(view for view, recipe in made.items() if known.get(view) != fingerprint(recipe))
        if other:
            reason = "are of another kind than" if self.recipes else "cannot be compared with"
            raise InputError(
                f"cells of view {other[0]!r} as they are made here {reason} those the bundle learned of; "
                "train again, or use the configuration, and the weights, that trained it"
            )


@dataclass(frozen=True)
class Bundle:
    """An adapter and what it was trained with.

    banks: embeddings of training images of either view; recipes: by view, what its frozen features depend on;
    scores: label-free scores of the round that was kept, "score" None where nobody judged;
    trained_on: `row_digests` of the training features of either view, sorted; alignment: where there was one.
    """

    adapter: ViewCentred
    banks: Banks
    config: Config
    recipes: dict[str, Any]
    scores: dict[str, float | None]
    trained_on: tuple[np.ndarray, np.ndarray]
    alignment: BundledAlignment | None = None

    def trusts(self, backbone: Backbone, *, verify: bool) -> bool:
        """Whether what is stored by this bundle's recipes is a backbone's: it is the bundle's, where it was.

        Another one, or one that lies elsewhere now, is looked at whatever is stored.
        """
        return backbone == self.config.backbone and not verify

    def retriever(self, section: Retrieval) -> Retriever:
        """The model as the section says that retrieval compares."""
        return Retriever(self.adapter, self.banks, section.scores, section.neighbours, section.bank)


def bundle_of(
    learner: Learner,
    banked: tuple[np.ndarray, np.ndarray],
    row_digests: tuple[np.ndarray, np.ndarray],
    config: Config,
    recipes: dict[str, Any],
) -> Bundle:
    """The bundle of a learner that has returned to the round to keep.

    Of the frozen features that it was trained on, by view: banked [n, D], those that `retrieval.banked`
    takes; row_digests [N], of all.
    """
    assert learner.labels is not None
    adapter = learner.adapter.eval()
    banks = training_banks(adapter, *banked)
    trained_on = np.sort(row_digests[0]), np.sort(row_digests[1])
    scores = {"score": None} | label_free_scores(learner.labels) | learner.kept_scores()
    return Bundle(adapter, banks, config, recipes, scores, trained_on)


def pairs_of(learner: Learner) -> list[tuple[int, int, float]]:
    """The pseudo-labels of a learner's round: rows of its views' features, and their cosine."""
    labels = learner.labels
    assert labels is not None
    queries, references = labels.pairs()
    cosines = labels.cosine[labels.of_query >= 0]
    return list(zip(queries.tolist(), references.tolist(), cosines.tolist(), strict=True))


def save_bundle(
    folder: Path,
    bundle: Bundle,
    pairs: list[tuple[str, str, float]],
    poses: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a bundle, replacing one that is there.

    pairs: the last round's pseudo-labels (query image_id, reference image_id, cosine); poses: of those that
    were laid on each other, rows of poses.parquet.
    """
    arrays = {
        "adapter": safetensors.torch.save(bundle.adapter.state_dict()),
        "bank": safetensors.numpy.save(dict(zip(VIEWS, bundle.banks, strict=True))),
        "trained_on": safetensors.numpy.save(dict(zip(VIEWS, bundle.trained_on, strict=True))),
    }
    if bundle.alignment is not None:
        arrays["alignment"] = safetensors.torch.save(_named(bundle.alignment))
    description = {
        "format": FORMAT,
        "dimension": bundle.adapter.dimension,
        "width": bundle.adapter.width,
        "digests": {name: file_digest(content) for name, content in arrays.items()},
        "config": bundle.config.model_dump(mode="json"),
        "recipes": bundle.recipes,
        "cells": None if bundle.alignment is None else bundle.alignment.recipes,
    }
    with replacing(folder) as new:
        for name, content in arrays.items():
            (new / f"{name}.safetensors").write_bytes(content)
        (new / "config.json").write_text(json.dumps(description, indent=2) + "\n")
        (new / "metrics.json").write_text(json.dumps(bundle.scores, indent=2) + "\n")
        columns = list(zip(*pairs, strict=True)) or [(), (), ()]
        names = ("query", "reference", "cosine")
        types = (pa.string(), pa.string(), pa.float32())
        table = pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})
        pq.write_table(table, new / "pseudo_labels.parquet")
        if poses:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in poses]), new / "poses.parquet")


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle, its adapter in evaluation mode on the CPU.

    Raises InputError where the folder is no bundle, or its adapter does not fit its description.
    """
    folder = standing(folder)
    try:
        description = json.loads((folder / "config.json").read_text())
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, expected {FORMAT}")
        scores = json.loads((folder / "metrics.json").read_text())
        weights, bank, trained = (_whole(folder, name, description["digests"]) for name in ARRAYS)
        alignment = None
        if "alignment" in description["digests"]:
            arrays = safetensors.torch.load(_whole(folder, "alignment", description["digests"]))
            directions = arrays.pop(DIRECTIONS, None)
            alignment = BundledAlignment(arrays, directions, description.get("cells") or {})
        state = safetensors.torch.load(weights)
        banks, trained_on = (
            (arrays[VIEWS[0]], arrays[VIEWS[1]]) for arrays in map(safetensors.numpy.load, (bank, trained))
        )
        description["config"].get("estep", {}).pop("shards", None)  # of before workers were the shards
        config = Config.model_validate(description["config"])
        adapter = build_adapter(config.adapter, description["dimension"], seed=config.run.seed)
        adapter.load_state_dict(state)
        recipes = description["recipes"]
    except OSError as error:
        name = Path(error.filename).name
        raise InputError(f"{folder} is no bundle: {name}: {error.strerror}; give DIR/bundle") from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        missing = isinstance(error, KeyError)
        reason = f"config.json has no key {error}" if missing else " ".join(str(error).split())
        raise InputError(f"bundle {folder} cannot be read ({reason}); train again") from error
    return Bundle(adapter.eval(), banks, config, recipes, scores, trained_on, alignment)


def load_pairs(folder: Path) -> list[tuple[str, str, float]]:
    """The pseudo-labels beside a bundle: query image_id, reference image_id, cosine.

    Raises InputError where they cannot be read.
    """
    try:
        rows = pq.read_table(folder / "pseudo_labels.parquet").to_pylist()
        return [(row["query"], row["reference"], row["cosine"]) for row in rows]
    except (OSError, KeyError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{folder}/pseudo_labels.parquet cannot be read ({error}); train again") from error


def _named(alignment: BundledAlignment) -> dict[str, torch.Tensor]:
    arrays = {name: value.contiguous() for name, value in alignment.learned.items()}
    return arrays if alignment.directions is None else {**arrays, DIRECTIONS: alignment.directions}


def _whole(folder: Path, name: str, digests: dict[str, str]) -> bytes:
    """The content of a bundle's arrays; raises ValueError where it is not what was written."""
    content = (folder / f"{name}.safetensors").read_bytes()
    if file_digest(content) != digests[name]:
        raise ValueError(f"{name}.safetensors is damaged: it does not match the digest in config.json")
    return content
