"""What a pose is worth before one looks: which headings, ground widths and offsets pairs of these views have.

Nobody says how the views lie to each other. A few pairs that are sure tell: where all of them share a heading,
a pose of another heading is evidence against a pair. Fitted anew in each round, from that round's pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch

SMOOTH = np.array([0.25, 0.5, 0.25])  # over neighbouring headings and widths
DOUBT = 0.1  # share of the pairs that may lie anywhere: wrong ones, and rare poses
RARE = 0.02  # a heading or width of a smaller share is no longer tried
NARROW = 0.03  # least spread of the offsets, in shares of the reference's side


@dataclass(frozen=True)
class PosePrior:
    """Log-weights of headings [H] and widths [W], -inf for those left out, and where the middles lie.

    centre [2] and spread: mean (row, column) and standard deviation of the offsets, in shares of the
    reference's side; infinite: anywhere. spreads [W]: of wrong pairs' scores, by which each width's are
    divided... scale: what one unit of log-weight is worth in the score.
    """

    heading: np.ndarray
    width: np.ndarray
    centre: np.ndarray
    spread: float
    scale: float

    @classmethod
    def flat(cls, headings: int, widths: int) -> "PosePrior":
        """Every pose is as good as any other."""
        return cls(np.zeros(headings), np.zeros(widths), np.zeros(2), np.inf, 0.0)

    def bonus(self, width: int, headings: np.ndarray, offsets: np.ndarray) -> torch.Tensor:
        """What is added to the scores [H, o, o] of one width at these headings and offsets."""
        where = np.zeros((len(offsets), len(offsets)))
        if np.isfinite(self.spread):
            squares = [((offsets - middle) / self.spread) ** 2 for middle in self.centre]
            near = np.exp(-0.5 * (squares[0][:, None] + squares[1][None, :]))
            where = np.log((1 - DOUBT) * near + DOUBT * near.mean())
            where -= where.max()
        total = self.heading[headings][:, None, None] + self.width[width] + where
        return torch.from_numpy((self.scale * total).astype(np.float32))


def fit_prior(
    heading: np.ndarray, width: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int], scale: float
) -> PosePrior:
    """The prior of the poses of sure pairs, arrays [p]; shape: numbers of headings and widths.

    scale: spread of wrong pairs' scores squared over the mean lead of right ones: what a log-likelihood ratio
    of two normal distributions makes of a score.
    """
    headings = _log_weights(np.bincount(heading, minlength=shape[0]), circular=True)
    widths = _log_weights(np.bincount(width, minlength=shape[1]), circular=False)
    offsets = np.stack([row, column], axis=1)
    centre = np.median(offsets, axis=0)
    spread = max(NARROW, 1.4826 * float(np.median(np.abs(offsets - centre))))
    return PosePrior(headings, widths, centre, spread, scale)


def _log_weights(counts: np.ndarray, *, circular: bool) -> np.ndarray:
    """Log of the smoothed share of each, relative to the largest; -inf below RARE."""
    mode = "wrap" if circular else "edge"
    counts = counts.astype(float)
    if len(counts) > 2:
        padded = np.pad(counts, 1, mode=mode) if circular else np.pad(counts, 1)
        counts = np.convolve(padded, SMOOTH, mode="valid")
    shares = (1 - DOUBT) * counts / max(counts.sum(), 1e-12) + DOUBT / len(counts)
    with np.errstate(divide="ignore"):
        return np.where((1 - DOUBT) * counts / max(counts.sum(), 1e-12) >= RARE, np.log(shares / shares.max()), -np.inf)
