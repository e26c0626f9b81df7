"""A checkpoint file's weights for one model, whatever wrapper, prefix and names they were saved under.

The field saves a backbone in many ways: inside a retrieval model (`model.` beside a `logit_scale`, as
Sample4Geo), in Lightning's `state_dict`, as DINO's `teacher` and `student`, under DataParallel's `module.`.
What is common to all: there is one prefix under which all keys of the model lie.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import nn

from cvgl_ray.errors import InputError

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]

CLASSIFIERS = ("head.", "head_dist.", "classifier.", "fc.", "head_drop.")
# Where several copies of the model lie in one file, the first of these is taken: DINO evaluates its teacher.
PREFERRED = ("", "state_dict", "model", "teacher", "student")
PREFIX_PARTS = 3  # such as "module.model.backbone."
ATTEMPTS = 6  # of the most likely places


class Place(NamedTuple):
    """Where weights lie in a file: the tensors of one mapping, and a prefix of their keys."""

    mapping: str  # its keys from the top, joined by dots; "" for the top itself
    prefix: str

    def __str__(self) -> str:
        return f"{self.mapping}{'.' if self.mapping else ''}{self.prefix}*"


def read_checkpoint(path: str) -> dict[str, State]:
    """All mappings from names to tensors in a file, by the keys that lead to them.

    A `.safetensors` file, or one that `torch.load(weights_only=True)` reads; nothing in it is ever executed.
    Raises InputError if there is no such file, it cannot be read, or holds no weights.
    """
    check_checkpoint(path)
    try:
        if path.endswith(".safetensors"):
            tree: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm's own checkpoints hold one
                tree = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(_mappings(tree, ""))
    except Exception as error:  # safetensors, pickle and zip readers each have their own
        raise InputError(
            f"backbone.checkpoint {path} cannot be read ({type(error).__name__}); "
            "give a .safetensors file or one that torch.load(weights_only=True) accepts"
        ) from error
    if not found:
        raise InputError(f"backbone.checkpoint {path} holds no weights, which are tensors by name")
    return found


def check_checkpoint(path: str) -> None:
    """Raise InputError if the path is not a file."""
    if not Path(path).is_file():
        raise InputError(f"backbone.checkpoint {path} is not a file; give a local one")


def load_weights(model: nn.Module, name: str, checkpoint: str, found: Mapping[str, State]) -> None:
    """Load the one set of weights that is the model's, and say where it lay and what was left out.

    name: the timm model's; checkpoint: the file, for messages; found: as `read_checkpoint` gives it. Each
    weight of the model must be there in its shape. Classifiers, what lies outside the prefix and lone
    numbers (a `logit_scale`) are left out, anything else is not. Raises InputError if no place fits.
    """
    own = model.state_dict()
    likely = _places(own, found)
    closest, fault = (len(own), 0), "no weight has a name that the model knows"
    for place in likely[:ATTEMPTS]:
        part, outside = _cut(found[place.mapping], place.prefix)
        state, left_out = _without_extras(_renamed(part, model), own)
        missing, unknown = _missing(own, state), sorted(set(state) - set(own))
        if not missing and not unknown:
            model.load_state_dict({**own, **state})
            _report(checkpoint, place, sorted([*outside, *left_out]))
            return
        if (len(missing), len(unknown)) < closest:
            closest = len(missing), len(unknown)
            shaped = [key for key in missing if key in state]
            fault = f"of {shaped[0]} the shape differs" if shaped else (missing + unknown)[0]
    raise InputError(
        f"backbone.checkpoint {checkpoint} is not one of {name}: {closest[0]} weights are missing or differ "
        f"in shape and {closest[1]} are unknown (first: {fault}); give the checkpoint of this architecture"
    )


def _mappings(tree: Any, path: str) -> Iterator[tuple[str, State]]:
    """The mappings of a nested tree that hold tensors by name. Raises TypeError for no mapping at all."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"expected a mapping, found {type(tree).__name__}")
    named = {key: value for key, value in tree.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield path, tensors
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _mappings(value, f"{path}.{key}" if path else key)


def _places(own: Mapping[str, Any], found: Mapping[str, State]) -> list[Place]:
    """Where the model's weights may lie, the likeliest first.

    By how many keys of the model stand there; then, for a file under its authors' own names, by how many keys
    there are at all.
    """
    ranked = []
    for number, (mapping, state) in enumerate(found.items()):
        preferred = PREFERRED.index(mapping) if mapping in PREFERRED else len(PREFERRED) + number
        for prefix, count in Counter(p for key in state for p in _prefixes(key)).items():
            hits = sum(prefix + key in state for key in own)
            ranked.append(((-hits, preferred, -count, len(prefix)), Place(mapping, prefix)))
    return [place for _, place in sorted(ranked)]


def _prefixes(key: str) -> Iterator[str]:
    yield ""
    parts = key.split(".")
    for depth in range(1, min(len(parts), PREFIX_PARTS + 1)):
        yield ".".join(parts[:depth]) + "."


def _cut(state: State, prefix: str) -> tuple[State, list[str]]:
    """The tensors below a prefix, without it, and the keys of the others."""
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]


def _renamed(state: State, model: nn.Module) -> State:
    """The weights under timm's names, by timm's own translation of the authors'."""
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        renamed: State = translate(dict(state), model)
        return renamed
    except Exception:  # each architecture's fails in its own way on what is not its own
        return state


def _without_extras(state: State, own: Mapping[str, Any]) -> tuple[State, list[str]]:
    """What may not be left out, and the keys of what may: a classifier, lone numbers."""
    extras = [
        key
        for key, value in state.items()
        if key not in own and (key.startswith(CLASSIFIERS) or value.numel() == 1)
    ]
    return {key: value for key, value in state.items() if key not in extras}, extras


def _missing(own: State, state: State) -> list[str]:
    """The model's keys that lack, or have another shape; a counter of batches matters to training alone."""
    return sorted(
        key
        for key, value in own.items()
        if (key not in state and not key.endswith("num_batches_tracked"))
        or (key in state and state[key].shape != value.shape)
    )


def _report(checkpoint: str, place: Place, left_out: Iterable[str]) -> None:
    names = list(left_out)
    if names or place != Place("", ""):
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        log.info("backbone.checkpoint %s: took %s; left out: %s", checkpoint, place, shown or "nothing")
