"""Fold each batch normalisation of a frozen model into the convolution before it, which is quicker."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Of an output's largest value: rounding stays far below it, a fold that changes the model far above.
TOLERANCE = 1e-3


def fold_batch_norms(model: nn.Module, outputs: Callable[[], list[torch.Tensor]]) -> int:
    """Fold each batch normalisation whose input is a convolution's output into that convolution.

    model: float32, in evaluation mode; outputs: runs it on a sample and returns all that is used of it.
    Returns how many were folded: none where the outputs would change by more than rounding, as they do where
    something else also reads a convolution's output.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return 0
    expected, pairs = _run(model, outputs)
    names = {module: name for name, module in model.named_modules()}
    for convolution, norm in pairs:
        model.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        model.set_submodule(names[norm], _activation(norm))
    try:
        if all(_equal(*both) for both in zip(outputs(), expected, strict=True)):
            return len(pairs)
    except AttributeError:  # the model reads what only a normalisation has
        pass
    for convolution, norm in pairs:
        model.set_submodule(names[convolution], convolution)
        model.set_submodule(names[norm], norm)
    return 0


def _run(
    model: nn.Module, outputs: Callable[[], list[torch.Tensor]]
) -> tuple[list[torch.Tensor], list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """The outputs, and the convolutions and normalisations called once, one on what the other returned."""
    made: list[tuple[torch.Tensor, nn.Conv2d]] = []  # which keeps the tensors, so that no other has their id
    read: list[tuple[torch.Tensor, nn.BatchNorm2d]] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda conv, _, output: made.append((output, conv))))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(lambda norm, rows: read.append((rows[0], norm))))
    try:
        expected = outputs()
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(module for _, module in [*made, *read])
    maker = {id(output): convolution for output, convolution in made}
    found = [(maker[id(rows)], norm) for rows, norm in read if id(rows) in maker]
    return expected, [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1]


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a normalisation: nothing, or timm's activation that belongs to it."""
    return getattr(norm, "act", nn.Identity())


def _equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
