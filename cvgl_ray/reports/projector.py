"""A sample of pseudo-pairs for TensorBoard's embedding projector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from cvgl_ray.em.adapters import ViewCentred, embed
from cvgl_ray.features.table import Table
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.reports.pictures import load_tiles

PAIRS = 256
DIMENSIONS = 64  # what the browser is given: the sample's principal components
SIDE_PX = 40


@dataclass(frozen=True)
class Projection:
    """Embeddings `points` [n, d <= DIMENSIONS] with a line of `metadata` and a thumbnail [n, 3, H, W] each.

    thumbnails: float32 in [0, 1].
    """

    HEADER: ClassVar[tuple[str, ...]] = ("view", "image", "pseudo-partner", "cosine")
    points: np.ndarray
    metadata: list[list[str]]
    thumbnails: torch.Tensor


def project_pairs(
    pairs: Sequence[tuple[str, str, float]],
    query: Table,
    reference: Table,
    adapter: ViewCentred,
    uris: Mapping[str, str],
) -> Projection | None:
    """Up to PAIRS evenly spaced pseudo-pairs (query image_id, reference image_id, cosine); None without any.

    uris: by image_id. A reference of several pairs appears once, with its first partner.
    """
    if not pairs:
        return None
    chosen = [pairs[row] for row in np.unique(np.linspace(0, len(pairs) - 1, PAIRS).astype(int))]
    partners = {r: (q, cosine) for q, r, cosine in reversed(chosen)}
    lines = [["query", q, r, f"{cosine:.3f}"] for q, r, cosine in chosen]
    lines += [["reference", r, q, f"{cosine:.3f}"] for r, (q, cosine) in partners.items()]
    points = np.concatenate(
        [
            embed(adapter, query.rows([q for q, _, _ in chosen]), QUERY),
            embed(adapter, reference.rows(partners), REFERENCE),
        ]
    )
    tiles = load_tiles({name: uris[name] for _, name, _, _ in lines}, SIDE_PX)
    thumbnails = np.stack([np.asarray(tiles[name]) for _, name, _, _ in lines])
    return Projection(
        _principal(points), lines, torch.from_numpy(thumbnails).permute(0, 3, 1, 2).float() / 255
    )


def _principal(points: np.ndarray) -> np.ndarray:
    """Coordinates [n, d] of points [n, D] on their first principal components."""
    centred = points - points.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    return (left * lengths)[:, :DIMENSIONS]
