"""Tokens or maps -> one vector an image."""

import torch

POOLINGS = ("gem", "gem_signed", "mean", "max", "cls")


def gem(tokens: torch.Tensor, power: float) -> torch.Tensor:
    """Generalised mean (Radenovic et al., TPAMI 2019): (mean max(x, 1e-6)^p)^(1/p). [B, N, D] -> [B, D]."""
    return tokens.clamp(min=1e-6).pow(power).mean(dim=1).pow(1 / power)


def gem_signed(tokens: torch.Tensor, power: float) -> torch.Tensor:
    """GeM that keeps negative channels: m = mean sign(x)|x|^p, then sign(m)|m|^(1/p). [B, N, D] -> [B, D]."""
    moment = (tokens.sign() * tokens.abs().pow(power)).mean(dim=1)
    return moment.sign() * moment.abs().pow(1 / power)


def pool(patches: torch.Tensor, prefix: torch.Tensor | None, kind: str, power: float = 3.0) -> torch.Tensor:
    """Pool patch tokens [B, N, D] (or take the first prefix token of [B, P, D]) to [B, D].

    Raises ValueError for kind "cls" without a prefix token and for an unknown kind.
    """
    if kind == "gem":
        return gem(patches, power)
    if kind == "gem_signed":
        return gem_signed(patches, power)
    if kind == "mean":
        return patches.mean(dim=1)
    if kind == "max":
        return patches.amax(dim=1)
    if kind == "cls":
        if prefix is None or prefix.shape[1] == 0:
            raise ValueError("pooling 'cls' needs a class token, and this layer of the backbone has none")
        return prefix[:, 0]
    raise ValueError(f"pooling {kind!r} is not one of {', '.join(POOLINGS)}")
