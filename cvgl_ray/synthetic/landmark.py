"""The target of a place: the building in its middle."""

import numpy as np

from cvgl_ray.synthetic.canvas import Canvas, Ground, frame, rectangle
from cvgl_ray.synthetic.structures import SHAPES, Palette, drum, mass, shed, tower


def landmark(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float, scale: float) -> None:
    """The target building, at the origin, on a forecourt of its own."""
    half = (float(rng.uniform(20, 38)) * scale, float(rng.uniform(16, 30)) * scale)
    yard = (Ground.GRASS, Ground.PLAZA, Ground.PAVEMENT, Ground.GRAVEL)[int(rng.integers(4))]
    canvas.pave(rectangle((0, 0), angle, half[0] + 9, half[1] + 9), yard)
    kind = rng.choice(
        ["mass", "church", "arena", "tower", "shed", "cluster"], p=[0.46, 0.1, 0.12, 0.12, 0.08, 0.12]
    )
    if kind == "mass":
        shape, pitched = str(rng.choice(list(SHAPES))), bool(rng.random() < 0.4)
        mass(canvas, rng, palette, (0, 0), angle, half, float(rng.uniform(9, 26)), shape, pitched)
    elif kind == "church":
        mass(canvas, rng, palette, (0, 0), angle, (half[0], half[0] * 0.6), 13.0, "cross", True)
        mass(canvas, rng, palette, frame((0, 0), angle, -half[0], 0), angle, (5, 8), 32.0, "bar", True)
    elif kind == "arena":
        drum(canvas, rng, (0, 0), half[1] * 1.15, float(rng.uniform(8, 16)), float(rng.uniform(3, 12)))
        mass(canvas, rng, palette, frame((0, 0), angle, half[1] * 1.3, 0), angle, (9, 16), 7.0)
    elif kind == "tower":
        tower(canvas, rng, palette, (0, 0), angle, half, float(rng.uniform(30, 62)))
    elif kind == "shed":
        shed(canvas, rng, (0, 0), angle, (half[0] * 1.2, half[1]), float(rng.uniform(8, 13)))
    else:
        for u, v in ((-0.62, -0.6), (0.62, -0.5), (-0.5, 0.62), (0.66, 0.6)):
            spot, shape = (
                frame((0, 0), angle, u * half[0], v * half[1]),
                str(rng.choice(["bar", "L", "O", "T"])),
            )
            size = (half[0] * 0.4 * float(rng.uniform(0.6, 1)), half[1] * 0.42 * float(rng.uniform(0.6, 1)))
            mass(
                canvas,
                rng,
                palette,
                spot,
                angle,
                size,
                float(rng.uniform(7, 20)),
                shape,
                bool(rng.random() < 0.4),
            )
