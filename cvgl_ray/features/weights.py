"""The weights of a frozen backbone: timm's hub, a local checkpoint, a package, or seeded random ones."""

import hashlib
from typing import Any

import torch
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.checkpoint import check_checkpoint, load_weights, read_checkpoint
from cvgl_ray.features.hub import check_hub, check_name, local_weights, unreachable
from cvgl_ray.features.packaged import PREFIX, packaged, packaged_state


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
    check_source(name, checkpoint, pretrained)
    model = _create(name, pretrained and not checkpoint, seed)
    if checkpoint.startswith(PREFIX):
        source = packaged(checkpoint)
        load_weights(model, name, checkpoint, {"": packaged_state(checkpoint)})
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": source.mean, "std": source.std}
    elif checkpoint:
        load_weights(model, name, checkpoint, read_checkpoint(checkpoint))
    if image_size and hasattr(model, "set_input_size"):
        try:
            model.set_input_size(img_size=image_size)
        except Exception as error:  # each architecture has its own
            raise InputError(
                f"{name} cannot take backbone.image_size {image_size} ({error}); "
                "give a multiple of its patch size"
            ) from error
    return model


def check_source(name: str, checkpoint: str = "", pretrained: bool = True) -> None:
    """Raise InputError, within seconds and without making the model, where `build_model` could not.

    For an unknown name, a checkpoint that is no file or no known package, and for a hub that does not answer.
    """
    check_name(name)
    if checkpoint.startswith(PREFIX):
        packaged(checkpoint)
    elif checkpoint:
        check_checkpoint(checkpoint)
    elif pretrained:
        check_hub(name)


def _create(name: str, pretrained: bool, seed: int) -> Any:
    """The model with the hub's weights, or seeded random ones."""
    import timm  # here: it takes seconds, which whoever makes no model need not wait

    overlay = {"file": file} if pretrained and (file := local_weights(name)) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(
                name, pretrained=pretrained, num_classes=0, pretrained_cfg_overlay=overlay
            )
        except Exception as error:
            if pretrained:
                raise unreachable(name, error) from error
            raise InputError(f"timm cannot make backbone.name {name!r} ({error})") from error


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters and buffers, in hex."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
