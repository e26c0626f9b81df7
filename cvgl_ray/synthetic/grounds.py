"""Open ground: parks, car parks, sports fields, container yards, rivers, trees."""

import numpy as np
from numpy.typing import NDArray

from cvgl_ray.synthetic.canvas import (
    CELL_M,
    HALF_M,
    Building,
    Canvas,
    Colour,
    Ground,
    Point,
    Roof,
    ellipse,
    frame,
    rectangle,
    stations,
)
from cvgl_ray.synthetic.fields import fractal_noise

CONTAINERS: tuple[Colour, ...] = (
    (168, 66, 48),
    (48, 88, 142),
    (70, 122, 84),
    (198, 160, 64),
    (150, 150, 150),
)
LEAFY = (Ground.GRASS, Ground.SOIL, Ground.PAVEMENT, Ground.PLAZA, Ground.GRAVEL)


def plant(canvas: Canvas, rng: np.random.Generator, points: NDArray[np.float64]) -> None:
    """Trees at the points [K, 2] whose ground can bear them; one in seven fails."""
    points = points[np.abs(points).max(axis=1) < canvas.half_m] if len(points) else points
    grows = np.isin(canvas.materials(points), LEAFY) & (rng.random(len(points)) < 0.86)
    radii = rng.uniform(1.8, 5.0, len(points))
    rows = np.column_stack([points, radii, radii * rng.uniform(1.6, 2.6, len(points))])
    canvas.trees.append(rows[grows])


def woods(canvas: Canvas, rng: np.random.Generator, count: int, clumping_m: float) -> None:
    """Trees on grass and soil, dense where a random field is high."""
    density = fractal_noise(rng, 64, 64 * clumping_m / (2 * HALF_M), 2)
    points = rng.uniform(-HALF_M + 3, HALF_M - 3, (count, 2))
    col, row = ((points + HALF_M) / (2 * HALF_M) * 64).astype(np.int32).T
    wanted = rng.random(count) < 1 / (1 + np.exp(1.0 - 3.0 * density[row, col]))
    wild = np.isin(canvas.materials(points), (Ground.GRASS, Ground.SOIL))
    plant(canvas, rng, points[wanted & wild])


def park(canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point) -> None:
    """Lawn, crossing paths, perhaps a pond or a round of flowers, trees."""
    canvas.pave(rectangle(centre, angle, *half), Ground.GRASS)
    path = Ground.GRAVEL if rng.random() < 0.6 else Ground.PAVEMENT
    for _ in range(int(rng.integers(2, 5))):
        ends = [
            frame(centre, angle, su * half[0], sv * half[1]) for su, sv in rng.uniform(-1, 1, (2, 2)).tolist()
        ]
        canvas.road([ends[0], centre, ends[1]], 2.4, path)
    if rng.random() < 0.4:
        spot = frame(centre, angle, *(rng.uniform(-0.4, 0.4, 2) * half).tolist())
        canvas.pave(ellipse(spot, half[0] * 0.35, half[1] * 0.35, angle), Ground.WATER)
    elif rng.random() < 0.5:
        canvas.pave(ellipse(centre, 7, 7), Ground.PLAZA)
        canvas.pave(ellipse(centre, 3, 3), Ground.POOL)
    scatter = rng.uniform(-0.95, 0.95, (int(half[0] * half[1] / 40), 2)) * half
    plant(canvas, rng, np.array([frame(centre, angle, u, v) for u, v in scatter.tolist()]).reshape(-1, 2))


def parking(canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point) -> None:
    """Rows of marked slots with lanes between."""
    canvas.pave(rectangle(centre, angle, *half), Ground.PARKING)
    for v in np.arange(-half[1] + 4, half[1] - 3, 15.0):
        for row in (v, v + 5.2):
            ends = [frame(centre, angle, side * (half[0] - 3), float(row)) for side in (-1, 1)]
            canvas.slots.append(np.add(stations(ends, 2.7, 0.0), (0, 0, np.pi / 2)))
        ends = [frame(centre, angle, side * (half[0] - 2), float(v) + 2.6) for side in (-1, 1)]
        canvas.road(ends, CELL_M, Ground.PAINT)
        if rng.random() < 0.35:
            canvas.road(ends, 2.2, Ground.GRASS)
            plant(canvas, rng, stations(ends, 7.0, 0.0)[:, :2])


def pitch(canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point) -> None:
    """A sports field with its lines, in a running track if there is room."""
    if half[0] > 45 and half[1] > 28:
        canvas.pave(ellipse(centre, half[0], half[1], angle, 40), Ground.TRACK)
        half = (half[0] * 0.76, half[1] * 0.72)
    half = (min(half[0], 48.0), min(half[1], 30.0))
    court = half[0] < 24
    canvas.pave(rectangle(centre, angle, *half), Ground.TRACK if court else Ground.TURF)
    corners = rectangle(centre, angle, half[0] - 1.5, half[1] - 1.5)
    canvas.road([*corners, corners[0]], CELL_M, Ground.PAINT)
    canvas.road(
        [frame(centre, angle, 0, -half[1] + 1.5), frame(centre, angle, 0, half[1] - 1.5)],
        CELL_M,
        Ground.PAINT,
    )
    ring = ellipse(centre, half[1] * 0.28, half[1] * 0.28)
    canvas.road([*ring, ring[0]], CELL_M, Ground.PAINT)


def containers(canvas: Canvas, rng: np.random.Generator, centre: Point, angle: float, half: Point) -> None:
    """Stacks of containers in rows on bare ground."""
    canvas.pave(rectangle(centre, angle, *half), Ground.SOIL if rng.random() < 0.5 else Ground.PARKING)
    for v in np.arange(-half[1] + 4, half[1] - 3, 7.0):
        for u in np.arange(-half[0] + 7, half[0] - 6, 13.0):
            if rng.random() < 0.3:
                continue
            spot = frame(centre, angle, float(u), float(v))
            colour = CONTAINERS[int(rng.integers(len(CONTAINERS)))]
            stack = Building(
                spot, angle, 6, 2.4, 2.6 * int(rng.integers(1, 4)), Roof.FLAT, colour, colour, bay_m=0
            )
            canvas.erect(stack, [rectangle(spot, angle, 6, 2.4)])


def river(canvas: Canvas, rng: np.random.Generator) -> None:
    """Flood a winding band, or all beyond a shore, at a distance from the centre; a bridge, piers, boats."""
    heading, wide = rng.uniform(0, 2 * np.pi), bool(rng.random() < 0.45)
    along = np.linspace(-1.6 * HALF_M, 1.6 * HALF_M, 40)
    swing, phase = rng.uniform(4, 26), rng.uniform(0, 2 * np.pi)
    near = rng.uniform(48, 85) + swing * np.sin(along / rng.uniform(45, 110) + phase)
    far = near + (2.5 * HALF_M if wide else rng.uniform(26, 70))
    banks = [
        [frame((0, 0), heading, float(u), float(v)) for u, v in zip(along, bank, strict=True)]
        for bank in (near, far)
    ]
    bed = banks[0] + banks[1][::-1]
    canvas.clear(bed)
    canvas.pave(bed, Ground.WATER)
    quay = (Ground.PAVEMENT, Ground.GRAVEL, Ground.SOIL)[int(rng.integers(3))]
    canvas.road(banks[0], float(rng.uniform(3, 9)), quay)
    if not wide:
        canvas.road(banks[1], float(rng.uniform(3, 9)), quay)
        u = float(rng.uniform(-90, 90))
        canvas.road([frame((0, 0), heading, u, 30), frame((0, 0), heading, u, 250)], 11.0, Ground.ASPHALT)
    for u in rng.uniform(-140, 140, int(rng.integers(0, 7))).tolist():
        edge = float(np.interp(u, along, near))
        reach = float(rng.uniform(14, 34))
        canvas.road(
            [frame((0, 0), heading, u, edge - 3), frame((0, 0), heading, u, edge + reach)],
            3.0,
            Ground.PAVEMENT,
        )
        for v in np.arange(edge + 4, edge + reach, 6.0):
            spot = frame((0, 0), heading, u + 4.5, float(v))
            boat = Building(
                spot, heading, 3.4, 1.2, 1.8, Roof.FLAT, (232, 232, 228), (200, 200, 205), bay_m=0
            )
            canvas.erect(boat, [ellipse(spot, 3.4, 1.2, heading, 10)])
