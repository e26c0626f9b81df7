"""What stands between a frozen feature and its embedding: one map shared by both views, of two kinds."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cvgl_ray.em.collective import total
from cvgl_ray.features.views import Rows


class GlobalBatchNorm(nn.Module):
    """BatchNorm over the rows of all workers; torch's own SyncBatchNorm does not run on CPUs.

    Training uses the batch's statistics and, with gradients enabled (an E-step only looks), moves the running
    ones by `momentum`; evaluation uses the running ones.
    """

    running_mean: torch.Tensor
    running_variance: torch.Tensor

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, rows: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise [n, width]; rows where `valid` [n] is false do not count in the statistics."""
        if self.training:
            counted = rows.new_ones(len(rows)) if valid is None else valid.to(rows.dtype)
            count = total(counted.sum())
            mean = total((rows * counted[:, None]).sum(0)) / count
            variance = total(((rows - mean).square() * counted[:, None]).sum(0)) / count
            if torch.is_grad_enabled():
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.detach(), self.momentum)
                self.running_variance.lerp_(unbiased.detach(), self.momentum)
        else:
            mean, variance = self.running_mean, self.running_variance
        return (rows - mean) * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias


class ViewCentred(nn.Module):
    """What every adapter shares: unit rows, centred by their view, go in; unit embeddings come out.

    norm: "view" subtracts each view's mean feature, kept in the buffer `centre` [2, D], from the training
    split; any other leaves the unit rows as they are. A subclass gives `encode`.
    """

    centre: torch.Tensor

    def __init__(self, dimension: int, width: int, *, norm: str, centre: torch.Tensor | None) -> None:
        super().__init__()
        self.dimension, self.width, self.norm = dimension, width, norm
        self.register_buffer("centre", torch.zeros(2, dimension) if centre is None else centre.clone())

    def normalise(self, features: torch.Tensor, view: int) -> torch.Tensor:
        """Frozen features [n, D] of one view as unit rows, centred where norm is "view"."""
        rows = F.normalize(features, dim=-1)
        return F.normalize(rows - self.centre[view], dim=-1) if self.norm == "view" else rows

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalised features [n, D] -> code [n, W], before its L2 normalisation."""
        raise NotImplementedError

    def forward(self, features: torch.Tensor, view: int) -> torch.Tensor:
        """Frozen features [n, D] of one view -> embeddings z [n, W], L2-normalised."""
        return F.normalize(self.encode(self.normalise(features, view)), dim=-1)


class LinearAdapter(ViewCentred):
    """The paper's adapter, learned by gradient: a linear encoder, and a linear decoder that maps back.

    norm: as in ViewCentred, or "batch": the reference implementation's shared BatchNorm after each.
    init: "identity" starts the encoder at the (truncated or padded) identity and the decoder at its
    transpose, so that round 0 sees the frozen features themselves; "random" is torch's default.
    """

    def __init__(
        self,
        dimension: int,
        width: int = 0,
        *,
        norm: str = "view",
        init: str = "identity",
        residual: bool = False,
        centre: torch.Tensor | None = None,
    ) -> None:
        width = width or dimension
        assert not residual or width == dimension
        super().__init__(dimension, width, norm=norm, centre=centre)
        self.residual = residual
        self.encoder, self.decoder = nn.Linear(dimension, width), nn.Linear(width, dimension)
        batch = norm == "batch"
        self.encoder_norm = GlobalBatchNorm(width) if batch else None
        self.decoder_norm = GlobalBatchNorm(dimension) if batch else None
        if init == "identity":
            with torch.no_grad():
                self.encoder.weight.copy_(torch.eye(width, dimension))
                self.decoder.weight.copy_(torch.eye(dimension, width))
                self.encoder.bias.zero_()
                self.decoder.bias.zero_()

    def encode(self, rows: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised features [n, D] -> code [n, W]; `valid` [n]: which rows BatchNorm counts."""
        code = self.encoder(rows)
        if self.encoder_norm is not None:
            code = self.encoder_norm(code, valid)
        return code + rows if self.residual else code

    def decode(self, code: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Code [n, W] -> reconstruction of the normalised feature [n, D]."""
        rows = self.decoder(code)
        return rows if self.decoder_norm is None else self.decoder_norm(rows, valid)


class Attenuation(ViewCentred):
    """The closed form's: feature x -> z = x - U^T (1 - f) U x, [n, D], x centred by view, z normalised.

    U [rank, D] holds orthonormal directions, f [rank] in (0, 1] their factors; outside their span z is x
    itself, and the map can be inverted, so nothing that the frozen model knows is lost. Untrained it is the
    identity. U and f are fitted, not learned by gradient (see `closed_form`).
    """

    directions: torch.Tensor
    factors: torch.Tensor

    def __init__(self, dimension: int, rank: int, *, norm: str = "view", centre: torch.Tensor | None = None):
        super().__init__(dimension, dimension, norm=norm, centre=centre)
        self.register_buffer("directions", torch.zeros(rank, dimension))
        self.register_buffer("factors", torch.ones(rank))

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalised features [n, D] -> code [n, D], before its L2 normalisation."""
        return rows - ((rows @ self.directions.T) * (1 - self.factors)) @ self.directions


@torch.no_grad()
def embed(
    adapter: ViewCentred,
    features: Rows,
    view: int,
    rows: np.ndarray | None = None,
    *,
    device: torch.device | str = "cpu",
    chunk: int = 16_384,
) -> np.ndarray:
    """Embeddings [n, W] float32 of frozen features [N, D] (of the given rows), in chunks.

    An adapter in training mode with BatchNorm sees all rows at once, since the batch is its statistics.
    """
    rows = np.arange(len(features)) if rows is None else rows
    if adapter.training and adapter.norm == "batch":
        chunk = max(1, len(rows))
    out = np.empty((len(rows), adapter.width), dtype=np.float32)
    for start in range(0, max(1, len(rows)), chunk):
        block = take(features, rows[start : start + chunk], device)
        out[start : start + chunk] = adapter(block, view).cpu().numpy()
    return out


def take(features: Rows, rows: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """Rows of a (read-only, memory-mapped) feature matrix as a float32 tensor on the device."""
    return torch.from_numpy(features[rows].astype(np.float32)).to(device)
