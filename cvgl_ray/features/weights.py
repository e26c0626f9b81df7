"""The weights of a frozen backbone: timm's hub, a local checkpoint, a package, or seeded random ones."""

import hashlib
import sys
from pathlib import Path

import torch
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.packaged import PREFIX, packaged, packaged_state

CLASSIFIERS = ("head.", "head_dist.", "classifier.", "fc.", "head_drop.")


def build_model(
    name: str,
    *,
    checkpoint: str = "",
    pretrained: bool = True,
    seed: int = 0,
    image_size: int | tuple[int, int] = 0,
) -> nn.Module:
    """Create a timm model without classifier.

    checkpoint: a local `.safetensors` file, or one that `torch.load(weights_only=True)` reads; or
    `package:NAME` for an installed package of weights, which brings its own mean and std. The classifier, if
    any, is ignored.
    image_size: px, or height and width; resizes a transformer's position embedding; 0 keeps the model's own.
    Raises InputError for an unknown name, an unreachable hub, a checkpoint that does not fit the model, or
    an image size that the model cannot take.
    """
    import timm  # here: it takes seconds, which whoever makes no model need not wait

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        raise InputError(f"backbone.name {name!r} is not a timm model; near it: {', '.join(near) or 'none'}")
    from_hub = pretrained and not checkpoint
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, pretrained=from_hub, num_classes=0)
        except Exception as error:
            if not from_hub:
                raise InputError(f"timm cannot make backbone.name {name!r} ({error})") from error
            raise InputError(
                f"the weights of {name} did not come from timm's hub ({type(error).__name__}); give "
                "backbone.checkpoint a local file, or set backbone.pretrained = false for random weights"
            ) from error
    if checkpoint.startswith(PREFIX):
        source = packaged(checkpoint)
        _load_state(model, name, checkpoint, packaged_state(checkpoint))
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": source.mean, "std": source.std}
    elif checkpoint:
        _load_state(model, name, checkpoint, _read(checkpoint))
    if image_size and hasattr(model, "set_input_size"):
        try:
            model.set_input_size(img_size=image_size)
        except Exception as error:  # each architecture has its own
            raise InputError(
                f"{name} cannot take backbone.image_size {image_size} ({error}); "
                "give a multiple of its patch size"
            ) from error
    return model


def _read(checkpoint: str) -> dict[str, torch.Tensor]:
    if not Path(checkpoint).is_file():
        raise InputError(f"backbone.checkpoint {checkpoint} is not a file; give a local one")
    from timm.models import load_state_dict

    try:
        state: dict[str, torch.Tensor] = load_state_dict(checkpoint, use_ema=False, weights_only=True)
    except Exception as error:  # safetensors, pickle and zip readers each have their own
        raise InputError(
            f"backbone.checkpoint {checkpoint} cannot be read ({type(error).__name__}); "
            "give a .safetensors file or one that torch.load(weights_only=True) accepts"
        ) from error
    return state


def _load_state(model: nn.Module, name: str, checkpoint: str, state: dict[str, torch.Tensor]) -> None:
    """Load strictly, but for a classifier. Raises InputError if the weights are another architecture's."""
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    own = model.state_dict()
    try:
        if rename is not None:  # timm's own translation of the original authors' key names
            state = rename(state, model)
        state = {key: value for key, value in state.items() if key in own or not key.startswith(CLASSIFIERS)}
        model.load_state_dict(state, strict=True)
    except Exception as error:  # each architecture's translation fails in its own way
        missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        raise InputError(
            f"backbone.checkpoint {checkpoint} is not one of {name}: {len(missing)} weights are missing and "
            f"{len(unknown)} are unknown (first: {(missing + unknown + ['shapes differ'])[0]}); "
            "give the checkpoint of this architecture"
        ) from error


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters and buffers, in hex."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
