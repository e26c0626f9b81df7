"""The open country between neighbourhoods: fields, hedges, tracks, groves, farmyards."""

import numpy as np

from cvgl_ray.synthetic import grounds, structures
from cvgl_ray.synthetic.canvas import CELL_M, Canvas, Ground, Point, frame, rectangle, stations
from cvgl_ray.synthetic.streets import REACH, Lot, build, shrunk, street
from cvgl_ray.synthetic.structures import Palette


def farmland(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Fields of unequal size along one direction, a lane through them, one or two farms."""
    fields = cut(rng, Lot((0.0, 0.0), angle, (REACH, REACH)), float(rng.uniform(110, 190)))
    for field in fields:
        sow(canvas, rng, field)
    across = float(rng.uniform(-60, 60))
    lane = [
        frame((0, 0), angle, u, across + float(rng.uniform(-25, 25))) for u in np.linspace(-REACH, REACH, 9)
    ]
    canvas.road(lane, 6.5, Ground.GRASS)
    street(canvas, rng, lane, 5.0)
    for _ in range(int(rng.integers(2, 4))):
        farmyard(canvas, rng, palette, frame((0, 0), angle, *rng.uniform(-150, 150, 2).tolist()), angle)
    grounds.woods(canvas, rng, int(rng.uniform(200, 900)), float(rng.uniform(50, 110)))


def cut(rng: np.random.Generator, lot: Lot, longest_m: float) -> list[Lot]:
    """Halve a rectangle across its longer side, unequally, until no side is longer than about this."""
    long = int(lot.half[1] > lot.half[0])
    if 2 * lot.half[long] < longest_m * rng.uniform(0.7, 1.3):
        return [lot]
    share, pieces = float(rng.uniform(0.32, 0.68)), []
    for part, middle in ((share, share - 1.0), (1 - share, share)):
        offset, half = [0.0, 0.0], list(lot.half)
        offset[long], half[long] = middle * lot.half[long], part * lot.half[long]
        piece = Lot(frame(lot.centre, lot.angle, offset[0], offset[1]), lot.angle, (half[0], half[1]))
        pieces += cut(rng, piece, longest_m)
    return pieces


def sow(canvas: Canvas, rng: np.random.Generator, field: Lot) -> None:
    """One field with its tramlines, and perhaps a hedge, a track or a grove along its edge."""
    half = (field.half[0] - 1.2, field.half[1] - 1.2)
    parcel = rectangle(field.centre, field.angle, *half)
    canvas.pave(parcel, Ground.GRASS)
    canvas.parcels.append(parcel)
    if rng.random() < 0.5:
        for v in np.arange(-half[1] + 9, half[1], float(rng.uniform(15, 28))).tolist():
            ends = [frame(field.centre, field.angle, u, v) for u in (-half[0], half[0])]
            canvas.road(ends, CELL_M, Ground.SOIL)
    side: list[Point] = [frame(field.centre, field.angle, u, field.half[1]) for u in (-half[0], half[0])]
    edge = rng.random()
    if edge < 0.4:
        spacing = float(rng.uniform(4, 10))
        grounds.plant(canvas, rng, stations(side, spacing, float(rng.normal(0, 0.5)), canvas.half_m)[:, :2])
    elif edge < 0.6:
        canvas.road(side, 3.0, Ground.GRAVEL)
    if rng.random() < 0.12:
        count = int(min(4 * half[0] * half[1] / 22, 500))
        spots = (rng.uniform(-1, 1, (count, 2)) * half).tolist()
        grounds.plant(canvas, rng, np.array([frame(field.centre, field.angle, u, v) for u, v in spots]))


def farmyard(canvas: Canvas, rng: np.random.Generator, palette: Palette, centre: Point, angle: float) -> None:
    """A yard with a house, barns and trees about it."""
    half = (float(rng.uniform(26, 42)), float(rng.uniform(22, 34)))
    canvas.pave(rectangle(centre, angle, half[0] + 8, half[1] + 8), Ground.GRASS)
    yard = (Ground.GRAVEL, Ground.SOIL, Ground.PAVEMENT)[int(rng.integers(3))]
    canvas.pave(rectangle(centre, angle, *half), yard)
    for u, v in ((-0.55, -0.55), (0.5, -0.6), (0.55, 0.5)):
        spot = frame(centre, angle, u * half[0], v * half[1])
        size = (half[0] * float(rng.uniform(0.26, 0.4)), half[1] * float(rng.uniform(0.2, 0.34)))
        turn = angle + (np.pi / 2 if rng.random() < 0.3 else 0.0)
        structures.shed(canvas, rng, spot, turn, size, float(rng.uniform(4, 8)))
    house = Lot(frame(centre, angle, -0.5 * half[0], 0.5 * half[1]), angle, (10.0, 9.0))
    build(canvas, rng, palette, shrunk(rng, house, 0.8, 1.2), 5.5, True, str(rng.choice(["bar", "L", "T"])))
    around = rng.uniform(-1.25, 1.25, (24, 2)) * half
    grounds.plant(canvas, rng, np.array([frame(centre, angle, u, v) for u, v in around.tolist()]))
