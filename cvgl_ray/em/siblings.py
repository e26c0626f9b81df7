"""Images of one view that show the same place, as far as the frozen features tell; no folder is asked."""

from collections.abc import Callable

import numpy as np
import torch

SAMPLE = 1024  # images of a view whose sibling is looked for
CHUNK = 8192  # rows normalised at a time

Normalise = Callable[[np.ndarray], torch.Tensor]  # row ids -> unit rows [n, D]


def siblings(normalise: Normalise, count: int, others: int) -> np.ndarray:
    """Pairs [p, 2] of row ids that are each other's nearest within a view of `count` images.

    others: images of the other view. Where there are not more than about one image a place, which a view of
    no more images than the other tells, nobody has a sibling and none is looked for. A large view is sampled.
    """
    if round(count / max(1, others)) < 2:
        return np.empty((0, 2), dtype=np.int64)
    rng = np.random.default_rng(count)
    rows = np.sort(rng.choice(count, min(count, SAMPLE), replace=False))
    forth = _nearest(normalise, rows, count)
    back = _nearest(normalise, forth, count)
    pairs = np.sort(np.stack([rows, forth], axis=1)[back == rows], axis=1)
    return np.unique(pairs, axis=0)


def _nearest(normalise: Normalise, rows: np.ndarray, count: int) -> np.ndarray:
    """The nearest other row of each of `rows` [n] among all `count`: ids [n]."""
    asked = normalise(rows)
    best = torch.full((len(rows),), -torch.inf, device=asked.device)
    ids = torch.zeros(len(rows), dtype=torch.int64, device=asked.device)
    for start in range(0, count, CHUNK):
        chunk = np.arange(start, min(start + CHUNK, count))
        scores = asked @ normalise(chunk).T
        scores[torch.from_numpy(rows[:, None] == chunk).to(asked.device)] = -torch.inf
        found = scores.max(dim=1)
        better = found.values > best
        best, ids = torch.where(better, found.values, best), torch.where(better, found.indices + start, ids)
    return ids.cpu().numpy()
