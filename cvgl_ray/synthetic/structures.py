"""Buildings: what stands on a lot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvgl_ray.synthetic.canvas import (
    Building,
    Canvas,
    Colour,
    Ground,
    Point,
    Roof,
    ellipse,
    frame,
    rectangle,
)

FLAT_ROOFS: tuple[Colour, ...] = (
    (196, 194, 188), (158, 156, 152), (118, 116, 114), (226, 226, 222), (176, 164, 146), (92, 94, 98),
    (142, 122, 104),
)  # fmt: skip
PITCHED_ROOFS: tuple[Colour, ...] = (
    (172, 92, 66), (150, 72, 54), (110, 88, 76), (84, 84, 92), (132, 118, 104), (64, 66, 70), (96, 116, 108),
)  # fmt: skip
METAL_ROOFS: tuple[Colour, ...] = (
    (206, 210, 212), (150, 166, 178), (122, 134, 120), (178, 128, 98), (232, 232, 230), (104, 122, 146),
)  # fmt: skip
WALLS: tuple[Colour, ...] = (
    (188, 176, 158), (160, 100, 78), (206, 202, 194), (136, 132, 128), (172, 150, 122), (122, 138, 152),
    (220, 208, 182),
)  # fmt: skip
BARRED = frozenset(Ground) - {Ground.GRASS, Ground.PAVEMENT, Ground.PLAZA, Ground.SOIL, Ground.GRAVEL}

Wing = tuple[float, float, float, float]  # centre u, v and half sizes, in fractions of the lot's half sizes
SHAPES: dict[str, tuple[Wing, ...]] = {
    "bar": ((0, 0, 1, 0.6),),
    "L": ((0, -0.7, 1, 0.3), (-0.72, 0.3, 0.28, 0.7)),
    "U": ((0, -0.72, 1, 0.28), (-0.74, 0.28, 0.26, 0.72), (0.74, 0.28, 0.26, 0.72)),
    "O": ((0, -0.74, 1, 0.26), (0, 0.74, 1, 0.26), (-0.76, 0, 0.24, 1), (0.76, 0, 0.24, 1)),
    "T": ((0, -0.7, 1, 0.3), (0, 0.3, 0.28, 0.7)),
    "H": ((-0.72, 0, 0.28, 1), (0.72, 0, 0.28, 1), (0, 0.1, 0.72, 0.26)),
    "cross": ((0, 0, 1, 0.3), (0.2, 0, 0.24, 1)),
    "comb": ((0, -0.78, 1, 0.22), (-0.8, 0.2, 0.2, 0.8), (0, 0.1, 0.18, 0.7), (0.8, 0.2, 0.2, 0.8)),
    "stairs": ((-0.6, -0.55, 0.4, 0.45), (0, 0, 0.4, 0.45), (0.6, 0.55, 0.4, 0.45)),
}


@dataclass(frozen=True)
class Palette:
    """The colours a neighbourhood builds with."""

    flat: tuple[Colour, ...]
    pitched: tuple[Colour, ...]
    walls: tuple[Colour, ...]


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 9.0) -> Colour:
    """One of the colours, a little off."""
    red, green, blue = colours[int(rng.integers(len(colours)))]
    light, tint, green_tint = rng.normal(0.0, spread, 3).tolist()
    shifted = (red + light + tint / 2, green + light + green_tint / 3, blue + light - tint / 2)
    return (_byte(shifted[0]), _byte(shifted[1]), _byte(shifted[2]))


def _byte(value: float) -> int:
    return int(min(max(value, 8.0), 250.0))


def draw_palette(rng: np.random.Generator) -> Palette:
    """Few enough colours of each kind for a neighbourhood to look like one."""
    flat, pitched, walls = (
        tuple(pick(rng, [colours[i]], 14) for i in rng.choice(len(colours), 3, replace=False))
        for colours in (FLAT_ROOFS, PITCHED_ROOFS, WALLS)
    )
    return Palette(flat, pitched, walls)


def equip_roof(
    canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point, top_m: float
) -> None:
    """Set plant rooms, vents, skylights or solar rows on a flat roof of these half sizes."""
    area = 4 * half[0] * half[1]
    if rng.random() < 0.07 and area > 250:
        rows = np.arange(-half[1] * 0.7, half[1] * 0.7, 3.2)
        for v in rows:
            spot = frame(centre, angle, 0.0, float(v))
            panel = Building(
                spot, angle, half[0], 1, top_m + 0.7, Roof.FLAT, (44, 54, 84), (60, 60, 66), bay_m=0
            )
            canvas.erect(panel, [rectangle(spot, angle, half[0] * 0.72, 0.9)])
        return
    for _ in range(int(np.clip(rng.poisson(1.5 + area / 260), 0, 14))):
        size_u, size_v = (
            rng.uniform(0.8, 0.8 + min(5.0, half[0] / 3)),
            rng.uniform(0.8, 0.8 + min(4.0, half[1] / 3)),
        )
        u = rng.uniform(-1, 1) * max(0.0, half[0] - size_u - 1.5)
        v = rng.uniform(-1, 1) * max(0.0, half[1] - size_v - 1.5)
        spot, shade = frame(centre, angle, u, v), pick(rng, FLAT_ROOFS, 14)
        box = Building(
            spot, angle, size_u, size_v, top_m + rng.uniform(0.6, 3.2), Roof.FLAT, shade, shade, bay_m=0
        )
        canvas.erect(box, [rectangle(spot, angle, size_u, size_v)])


def mass(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: Palette,
    centre: Point,
    angle: float,
    half: Point,
    eaves_m: float,
    shape: str = "bar",
    pitched: bool = False,
) -> None:
    """A building of a shape's wings under one flat roof, or under a pitched roof for each wing."""
    wall = pick(rng, palette.walls)
    roof = pick(rng, palette.pitched if pitched else palette.flat)
    bay = float(rng.choice([2.4, 3.2, 4.5]))
    wings = [
        (frame(centre, angle, u * half[0], v * half[1]), hu * half[0], hv * half[1])
        for u, v, hu, hv in SHAPES[shape]
    ]
    if not pitched:
        flat = Building(centre, angle, half[0], half[1], eaves_m, Roof.FLAT, roof, wall, bay_m=bay)
        canvas.erect(flat, [rectangle(spot, angle, hu, hv) for spot, hu, hv in wings])
        for spot, hu, hv in wings:
            equip_roof(canvas, rng, spot, angle, (hu, hv), eaves_m)
        return
    slope, form = rng.uniform(0.45, 0.8), Roof.HIP if rng.random() < 0.4 else Roof.GABLE
    for spot, hu, hv in wings:
        turn, long, short = (angle, hu, hv) if hu >= hv else (angle + np.pi / 2, hv, hu)
        part = Building(spot, turn, long, short, eaves_m, form, roof, wall, short * slope, bay_m=bay)
        canvas.erect(part, [rectangle(spot, angle, hu, hv)])


def tower(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: Palette,
    centre: Point,
    angle: float,
    half: Point,
    height_m: float,
) -> None:
    """A tower on a low podium, square or round."""
    podium = float(rng.uniform(5, 10))
    base = Building(
        centre, angle, *half, podium, Roof.FLAT, pick(rng, palette.flat), pick(rng, palette.walls)
    )
    canvas.erect(base, [rectangle(centre, angle, *half)])
    equip_roof(canvas, rng, centre, angle, half, podium)
    core = (half[0] * rng.uniform(0.45, 0.75), half[1] * rng.uniform(0.45, 0.75))
    spot = frame(centre, angle, rng.uniform(-0.2, 0.2) * half[0], rng.uniform(-0.2, 0.2) * half[1])
    is_round = rng.random() < 0.2
    body = Building(
        spot, angle, *core, height_m, Roof.FLAT, pick(rng, palette.flat), pick(rng, palette.walls), bay_m=2.0
    )
    canvas.erect(body, [ellipse(spot, *core, angle) if is_round else rectangle(spot, angle, *core)])
    equip_roof(canvas, rng, spot, angle, (core[0] * 0.6, core[1] * 0.6), height_m)


def shed(
    canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point, eaves_m: float
) -> None:
    """A ribbed metal hall: flat, barrel-vaulted, or a row of gables."""
    roof, wall, bay = pick(rng, METAL_ROOFS), pick(rng, METAL_ROOFS), 0.0
    form = (Roof.FLAT, Roof.VAULT, Roof.GABLE)[int(rng.integers(3))]
    naves = int(rng.integers(1, 5)) if form != Roof.FLAT else 1
    width = half[1] / naves
    rise = {Roof.FLAT: 0.0, Roof.VAULT: 0.35, Roof.GABLE: 0.3}[form] * min(width, 14.0)
    rib = float(rng.choice([2.8, 4.2, 7.0]))
    for nave in range(naves):
        spot = frame(centre, angle, 0.0, (2 * nave + 1 - naves) * width)
        hall = Building(spot, angle, half[0], width, eaves_m, form, roof, wall, rise, rib, bay)
        canvas.erect(hall, [rectangle(spot, angle, half[0], width)])
    if form == Roof.FLAT:
        equip_roof(canvas, rng, centre, angle, half, eaves_m)


def drum(
    canvas: Canvas, rng: np.random.Generator, centre: Point, radius_m: float, eaves_m: float, rise_m: float
) -> None:
    """A round building under a dome: a tank, a gasholder, an arena."""
    colour = pick(rng, METAL_ROOFS)
    body = Building(centre, 0.0, radius_m, radius_m, eaves_m, Roof.DOME, colour, colour, rise_m, bay_m=0)
    canvas.erect(body, [ellipse(centre, radius_m, radius_m)])
