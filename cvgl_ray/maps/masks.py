"""What of a picture is no picture: black and white fill around it, pictures of nothing."""

import numpy as np
from scipy import ndimage

BLACK = 5  # of 255: JPEG leaves so much noise on black fill
WHITE = 252
SIDE_PX = 16  # fill holds a square of this side; shadows, text and drawn lines are thinner
WHITE_SHARE = 0.01  # of the picture; a smaller white area may be a roof in the sun
BLANK_RANGE = 8  # of 255, between the first and the last hundredth of the grey values


def black_surround(rgb: np.ndarray) -> np.ndarray:
    """Which pixels show something: False on areas of fill, [H, W] bool.

    Black fill counts wherever it is (a hole in a map is one); white fill only where it touches the picture's
    edge and takes a hundredth of it, for white roofs are true. Specks, lines and shadows narrower than 16 px
    stay.

    rgb: [H, W, 3] uint8.
    """
    black = _areas(np.asarray(rgb.max(axis=2) <= BLACK))
    white = _areas(np.asarray(rgb.min(axis=2) >= WHITE))
    if white.any():
        labels, _ = ndimage.label(white)
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        sizes = np.bincount(labels.ravel())
        large = np.flatnonzero(sizes >= WHITE_SHARE * white.size)
        white = np.isin(labels, np.intersect1d(np.unique(edge), large[large > 0]))
    return ~(black | white)


def zero_surround(values: np.ndarray) -> np.ndarray:
    """As `black_surround`, of values [B, H, W] of more than 8 bits: fill is 0 in all bands, nothing else."""
    return ~_areas(np.asarray((values == 0).all(axis=0)))


def is_blank(rgb: np.ndarray) -> bool:
    """Whether a picture is of one brightness throughout: a lens cap, a failed frame. rgb: [H, W, 3] uint8."""
    grey = rgb.mean(axis=2)
    low, high = np.percentile(grey, (1, 99))
    return bool(high - low < BLANK_RANGE)


def _areas(mask: np.ndarray) -> np.ndarray:
    """The parts of a mask that a square of `SIDE_PX` fits into; it goes on beyond the picture's edges."""
    if not mask.any():
        return mask
    # The extremes of a sliding square are separable: as quick as two passes over the picture.
    inside = ndimage.minimum_filter(mask, SIDE_PX, mode="nearest")
    return ndimage.maximum_filter(inside, SIDE_PX, mode="nearest", origin=-1) & mask
