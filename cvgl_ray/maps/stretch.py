"""From 16 bits, or reflectances, to 8: one stretch for a whole map, measured on its pixels alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PERCENTILES = (1.0, 99.0)  # of a band's values: what lies beyond is clouds, glare and dead pixels


@dataclass(frozen=True)
class Stretch:
    """Per band: the value that becomes 0 and the value that becomes 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: np.ndarray) -> np.ndarray:
        """[B, h, w] of any type -> uint8, clipped; values that are not finite become 0."""
        low, high = (np.array(part, np.float32)[:, None, None] for part in (self.low, self.high))
        scaled = (values.astype(np.float32) - low) * (255 / (high - low))
        return np.clip(np.nan_to_num(scaled, nan=0.0) + 0.5, 0, 255).astype(np.uint8)


def measure(samples: Iterable[np.ndarray]) -> Stretch:
    """The stretch of the rasters that these samples [B, N] are from; without any value 0 to 1.

    Each band has its own: haze lifts blue more than red, and photos of a drone have none.
    """
    pooled = np.concatenate([np.asarray(sample, np.float64) for sample in samples], axis=1)
    if not pooled.size:
        return Stretch((0.0,) * len(pooled), (1.0,) * len(pooled))
    low, high = np.percentile(pooled, PERCENTILES, axis=1)
    high = np.where(high > low, high, low + 1)
    return Stretch(tuple(low.tolist()), tuple(high.tolist()))
