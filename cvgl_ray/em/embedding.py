"""Frozen features -> embeddings, in bounded memory."""

import numpy as np
import torch

from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.features.views import Rows


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
