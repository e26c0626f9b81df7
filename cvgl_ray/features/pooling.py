"""Tokens or maps -> one vector per image, or one per ring around its centre."""

from functools import cache

import torch

from cvgl_ray.errors import InputError

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


@cache
def ring_members(
    grid: tuple[int, int], radii: tuple[float, ...], device: torch.device | str = "cpu"
) -> list[torch.Tensor]:
    """Token indices of concentric rings of an [h, w] grid, row-major: one [n] int64 tensor per ring.

    radii: outer radii, rising, in half-sides of the grid (1 touches the sides, sqrt 2 the corners); a token
    belongs to the first ring that its centre lies in. A heading turns tokens within their ring, so pooling a
    ring keeps what lies near the centre apart from what lies far out, whatever the heading. Rings that the
    grid is too coarse to fill are left out. Raises InputError where the radii leave every token out.
    """
    height, width = grid
    y = (torch.arange(height) - (height - 1) / 2) / (height / 2)
    x = (torch.arange(width) - (width - 1) / 2) / (width / 2)
    ring_of = torch.bucketize((y[:, None] ** 2 + x[None, :] ** 2).sqrt().flatten(), torch.tensor(radii))
    members = [torch.nonzero(ring_of == ring).squeeze(1) for ring in range(len(radii))]
    filled = [ring for ring in members if len(ring)]
    if not filled:
        raise InputError(f"rings {list(radii)} hold no token of a {height} x {width} grid; give larger radii")
    return [ring.to(device) for ring in filled]
