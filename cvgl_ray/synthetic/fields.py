"""Raster arithmetic of the procedural world: noise, shifted copies, smoothing, cast shadows."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatField = NDArray[np.float32]


def fractal_noise(rng: np.random.Generator, size: int, wavelength: float, octaves: int = 3) -> FloatField:
    """Smooth random field [size, size], mean near 0, standard deviation near 1.

    `wavelength` is the coarsest feature's size in cells; each octave halves both wavelength and amplitude.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        knots = max(2, round(size * 2**octave / wavelength) + 1)
        coarse = Image.fromarray(rng.standard_normal((knots, knots), dtype=np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) * np.float32(0.5**octave)
    spread = float(total.std())
    return (total - total.mean()) / np.float32(max(spread, 1e-6))


def shifted(field: FloatField, rows: int, cols: int, fill: float) -> FloatField:
    """`out[r, c] = field[r + rows, c + cols]`, and `fill` where that lies outside the field."""
    out = np.full_like(field, fill)
    height, width = field.shape
    if abs(rows) >= height or abs(cols) >= width:
        return out
    target = (slice(max(0, -rows), height - max(0, rows)), slice(max(0, -cols), width - max(0, cols)))
    source = (slice(max(0, rows), height + min(0, rows)), slice(max(0, cols), width + min(0, cols)))
    out[target] = field[source]
    return out


def box_mean(field: FloatField, radius: int) -> FloatField:
    """Mean over a (2 radius + 1)-cell square window, with the border repeated outwards."""
    window = 2 * radius + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        sums = np.pad(field, pad, mode="edge").cumsum(axis=axis, dtype=np.float64)
        upper = np.take(sums, range(window, sums.shape[axis]), axis=axis)
        lower = np.take(sums, range(sums.shape[axis] - window), axis=axis)
        field = ((upper - lower) / window).astype(np.float32)
    return field


def shadow_height(
    height: FloatField, toward_sun: tuple[float, float], rise: float, doublings: int = 7
) -> FloatField:
    """Height below which a point of each cell's column lies in the shadow of other cells.

    `toward_sun` is the sun's horizontal direction as (rows, cols), scaled so that its larger part is one
    cell; `rise` is how far the sun's ray climbs on such a step, in the unit of `height`. The maximum over
    2**doublings steps of `height[x + k * toward_sun] - k * rise` is found by doubling the reach each time.
    """
    below_all = -1e6
    reach = shifted(height, round(toward_sun[0]), round(toward_sun[1]), below_all) - np.float32(rise)
    for doubling in range(doublings):
        steps = 2**doubling
        farther = shifted(reach, round(steps * toward_sun[0]), round(steps * toward_sun[1]), below_all)
        reach = np.maximum(reach, farther - np.float32(steps * rise))
    return reach
