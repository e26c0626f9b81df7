"""What a pose is worth before one looks: which headings, ground widths and offsets occur between the views.

Nobody says how the views lie to each other. A few pairs that are sure tell: where all of them share a
heading, a pose of another heading is evidence against a pair. Fitted anew in each round, from its pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch

SMOOTH = np.array([0.1, 0.8, 0.1])  # over neighbouring headings and widths
DOUBT = 0.1  # share of the pairs whose offset may be any
UNSEEN = 0.5  # pairs that each heading and width is given beforehand, so that few pairs rule nothing out
RARE = 0.02  # a heading or width of a smaller share is no longer tried
EVEN = 0.25  # of an even share of many headings, where that is less
NARROW = 0.05  # least spread of the offsets, in shares of the reference's side


@dataclass(frozen=True)
class PosePrior:
    """Log-weights of headings [H] and widths [W], -inf for those left out, and where the middles lie.

    centre [2] and spread: mean (row, column) and standard deviation of the offsets, in shares of the
    reference's side; infinite: anywhere. scale: what a unit of log-weight is worth in the score.
    level, unit [W]: mean and standard deviation of random pairs' best scores at each width: scores are
    counted from the one in units of the other, since a width with more cells on each other scores higher.
    """

    heading: np.ndarray
    width: np.ndarray
    centre: np.ndarray
    spread: float
    scale: float
    level: np.ndarray
    unit: np.ndarray

    @classmethod
    def flat(cls, headings: int, widths: int) -> "PosePrior":
        """Every pose is as good as any other."""
        return cls(
            np.zeros(headings), np.zeros(widths), np.zeros(2), np.inf, 0.0, np.zeros(widths), np.ones(widths)
        )

    def bonus(self, width: int, headings: np.ndarray, offsets: np.ndarray) -> torch.Tensor:
        """What is added to the scores [H, o, o] of one width at these headings and offsets."""
        where = np.zeros((len(offsets), len(offsets)))
        if np.isfinite(self.spread):
            squares = [((offsets - middle) / self.spread) ** 2 for middle in self.centre]
            near = np.exp(-0.5 * (squares[0][:, None] + squares[1][None, :]))
            anywhere = DOUBT * min(1.0, 2 * np.pi * self.spread**2)  # beside the normal distribution's peak
            where = np.log((1 - DOUBT) * near + anywhere) - np.log(1 - DOUBT + anywhere)
        total = self.heading[headings][:, None, None] + self.width[width] + where
        return torch.from_numpy((self.scale * total).astype(np.float32))


def fit_prior(
    heading: np.ndarray,
    width: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    before: PosePrior,
    scale: float,
) -> PosePrior:
    """The prior of the poses of sure pairs, arrays [p]; before: whose levels and units stay.

    scale: spread of wrong pairs' scores squared over the mean lead of right ones: what a log-likelihood ratio
    of two normal distributions makes of a score.
    """
    headings = _log_weights(np.bincount(heading, minlength=len(before.heading)), circular=True)
    widths = _log_weights(np.bincount(width, minlength=len(before.width)), circular=False)
    offsets = np.stack([row, column], axis=1)
    centre = np.median(offsets, axis=0)
    spread = max(
        NARROW, 1.2533 * float(np.abs(offsets - centre).mean())
    )  # a normal distribution's, by its mean
    return PosePrior(headings, widths, centre, spread, scale, before.level, before.unit)


def _log_weights(counts: np.ndarray, *, circular: bool) -> np.ndarray:
    """Log of the smoothed share of each, relative to the largest; -inf below RARE."""
    if len(counts) < 3:
        return np.zeros(len(counts))
    padded = np.pad(counts.astype(float), 1, mode="wrap" if circular else "constant")
    shares = np.convolve(padded, SMOOTH, mode="valid") + UNSEEN
    shares /= shares.sum()
    tried = shares >= min(RARE, EVEN / len(counts))
    if (
        circular and tried.sum() > len(counts) / 2
    ):  # they are spread: one that is missing among few pairs is missing by chance
        tried[:] = True
    with np.errstate(divide="ignore"):
        return np.where(tried, np.log(shares / shares.max()), -np.inf)
