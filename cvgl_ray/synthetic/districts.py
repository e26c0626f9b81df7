"""Street plans of the neighbourhoods, and what they put on their lots."""

from collections.abc import Callable

import numpy as np

from cvgl_ray.synthetic import grounds, structures
from cvgl_ray.synthetic.canvas import HALF_M, Canvas, Ground, frame, rectangle
from cvgl_ray.synthetic.landmark import landmark
from cvgl_ray.synthetic.streets import REACH, Lot, build, crooked_blocks, grid, shrunk, split, street
from cvgl_ray.synthetic.structures import BARRED, SHAPES, Palette


def downtown(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Dense blocks: towers, party-wall rows, courtyards, now and then a square or a car park."""
    canvas.pave(rectangle((0, 0), 0, HALF_M, HALF_M), Ground.PAVEMENT)
    block = (float(rng.uniform(60, 110)), float(rng.uniform(50, 80)))
    lots = grid(canvas, rng, angle, block, (8, 15), 0.0)
    if rng.random() < 0.35:
        turn, offset = angle + rng.uniform(0.4, 1.2), float(rng.uniform(50, 90))
        street(canvas, rng, [frame((0, 0), turn, -REACH, offset), frame((0, 0), turn, REACH, offset)], 16.0)
    landmark(canvas, rng, palette, angle, 0.85)
    tall = rng.uniform(10, 34)
    for lot in lots:
        use = rng.choice(["plots", "ring", "tower", "park", "parking"], p=[0.45, 0.22, 0.13, 0.1, 0.1])
        is_open = canvas.is_free(rectangle(lot.centre, angle, *lot.half), BARRED)
        if use == "park" and is_open:
            grounds.park(canvas, rng, lot.centre, angle, lot.half)
        elif use == "parking" and is_open:
            grounds.parking(canvas, rng, lot.centre, angle, lot.half)
        elif use == "tower" and is_open:
            structures.tower(canvas, rng, palette, lot.centre, angle, lot.half, float(rng.uniform(25, 70)))
        elif use == "ring" and is_open:
            build(
                canvas, rng, palette, lot, float(rng.uniform(0.6, 1.2) * tall), bool(rng.random() < 0.3), "O"
            )
        else:
            for plot in split(rng, lot, 24):
                shape = str(rng.choice(["bar", "L", "U", "T"])) if rng.random() < 0.5 else "bar"
                build(
                    canvas,
                    rng,
                    palette,
                    shrunk(rng, plot, 0.75, 0.99),
                    float(rng.uniform(0.4, 1.4) * tall),
                    False,
                    shape,
                )


def suburb(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Bent streets between rows of small pitched houses, gardens, pools, many trees."""
    block = (float(rng.uniform(90, 170)), float(rng.uniform(52, 70)))
    lots = grid(canvas, rng, angle, block, (6, 9), float(rng.uniform(0, 14)))
    landmark(canvas, rng, palette, angle, 0.7)
    plot_m, setback = float(rng.uniform(17, 27)), float(rng.uniform(0.5, 0.75))
    for lot in lots:
        if rng.random() < 0.04 and canvas.is_free(rectangle(lot.centre, lot.angle, *lot.half), BARRED):
            grounds.pitch(canvas, rng, lot.centre, lot.angle, lot.half)
            continue
        for plot in split(rng, lot, plot_m):
            house = shrunk(rng, plot, setback * 0.8, setback * 1.15)
            shift = rng.uniform(-2, 2, 2).tolist()
            house = Lot(
                frame(house.centre, lot.angle, *shift), lot.angle + float(rng.normal(0, 0.06)), house.half
            )
            shape = str(rng.choice(["bar", "bar", "L", "T"]))
            build(canvas, rng, palette, house, float(rng.uniform(3.2, 6.5)), True, shape)
            outward = float(np.sign(rng.normal())) * plot.half[1]
            canvas.road([house.centre, frame(plot.centre, lot.angle, 0.0, outward)], 2.8, Ground.PAVEMENT)
            if rng.random() < 0.14:
                pool = frame(plot.centre, lot.angle, plot.half[0] * 0.8, plot.half[1] * 0.6)
                canvas.pave(rectangle(pool, lot.angle, 3.6, 2.0), Ground.POOL)
    grounds.woods(canvas, rng, int(rng.uniform(1200, 3000)), float(rng.uniform(25, 70)))


def industry(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Large sheds, car parks, tanks and container yards on a coarse grid."""
    canvas.pave(rectangle((0, 0), 0, HALF_M, HALF_M), Ground.SOIL if rng.random() < 0.3 else Ground.GRASS)
    lots = grid(canvas, rng, angle, (float(rng.uniform(110, 170)), float(rng.uniform(80, 130))), (8, 12), 0.0)
    landmark(canvas, rng, palette, angle, 1.15)
    for lot in lots:
        for plot in split(rng, lot, float(rng.uniform(55, 90))):
            if not canvas.is_free(rectangle(plot.centre, angle, *plot.half), BARRED):
                plot = shrunk(rng, plot, 0.5, 0.6)
                if not canvas.is_free(rectangle(plot.centre, angle, *plot.half), BARRED):
                    continue
            use = rng.choice(
                ["shed", "parking", "containers", "tanks", "office", "waste"],
                p=[0.4, 0.18, 0.1, 0.1, 0.12, 0.1],
            )
            inner = shrunk(rng, plot, 0.6, 0.92)
            canvas.pave(
                rectangle(plot.centre, angle, *plot.half),
                (Ground.PARKING, Ground.SOIL, Ground.PAVEMENT, Ground.GRASS)[int(rng.integers(4))],
            )
            if use == "shed":
                structures.shed(canvas, rng, inner.centre, angle, inner.half, float(rng.uniform(6, 14)))
            elif use == "parking":
                grounds.parking(canvas, rng, plot.centre, angle, plot.half)
            elif use == "containers":
                grounds.containers(canvas, rng, inner.centre, angle, inner.half)
            elif use == "office":
                build(
                    canvas,
                    rng,
                    palette,
                    shrunk(rng, inner, 0.5, 0.8),
                    float(rng.uniform(7, 18)),
                    False,
                    str(rng.choice(list(SHAPES))),
                )
            elif use == "tanks":
                for tank in split(rng, inner, float(rng.uniform(18, 30))):
                    radius = min(tank.half) * float(rng.uniform(0.6, 0.9))
                    structures.drum(
                        canvas, rng, tank.centre, radius, float(rng.uniform(6, 14)), radius * 0.15
                    )
    grounds.woods(canvas, rng, int(rng.uniform(300, 1500)), 60)


def campus(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Large buildings set loosely in lawns, joined by paths; sports fields, groves."""
    ring = float(rng.uniform(85, 150))
    around = [
        frame((0, 0), angle, ring * float(np.cos(t)) * rng.uniform(0.8, 1.2), ring * float(np.sin(t)))
        for t in np.linspace(0, 2 * np.pi, 14)
    ]
    street(canvas, rng, [*around[:-1], around[0]], 8.0)
    for _ in range(int(rng.integers(1, 4))):
        start = around[int(rng.integers(13))]
        street(canvas, rng, [start, (start[0] * 4, start[1] * 4 + float(rng.uniform(-90, 90)))], 8.0)
    spots = rng.uniform(-HALF_M, HALF_M, (70, 2)).tolist()
    for index, (x, y) in enumerate(spots):
        for other in spots[index + 1 : index + 2]:
            if np.hypot(x - other[0], y - other[1]) < 190:
                canvas.road(
                    [(x, y), (other[0], other[1])], 2.2, Ground.GRAVEL if index % 3 else Ground.PAVEMENT
                )
    landmark(canvas, rng, palette, angle, 1.05)
    for x, y in spots:
        turn = angle + float(rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]))
        lot = Lot((x, y), turn, (float(rng.uniform(14, 36)), float(rng.uniform(11, 26))))
        barred = BARRED
        use = rng.random()
        if use < 0.13 and canvas.is_free(rectangle(lot.centre, turn, 52, 32), barred):
            grounds.pitch(canvas, rng, lot.centre, turn, (52, 32) if rng.random() < 0.5 else (20, 11))
        elif use < 0.22 and canvas.is_free(rectangle(lot.centre, turn, *lot.half), barred):
            grounds.parking(canvas, rng, lot.centre, turn, lot.half)
        elif use < 0.3 and canvas.is_free(rectangle(lot.centre, turn, *lot.half), barred):
            grounds.park(canvas, rng, lot.centre, turn, lot.half)
        else:
            build(
                canvas,
                rng,
                palette,
                lot,
                float(rng.uniform(7, 20)),
                bool(rng.random() < 0.4),
                str(rng.choice(list(SHAPES))),
            )
    grounds.woods(canvas, rng, int(rng.uniform(1200, 4500)), float(rng.uniform(40, 110)))


def old_town(canvas: Canvas, rng: np.random.Generator, palette: Palette, angle: float) -> None:
    """Crooked lanes about irregular blocks, each ringed by steep-roofed houses around a green court."""
    canvas.pave(
        rectangle((0, 0), 0, HALF_M, HALF_M), Ground.ASPHALT if rng.random() < 0.5 else Ground.PAVEMENT
    )
    blocks = crooked_blocks(rng, float(rng.uniform(46, 78)), float(rng.uniform(5, 10)))
    depth = float(rng.uniform(8, 12))
    for block in blocks:
        canvas.pave(block, Ground.GRASS if rng.random() < 0.7 else Ground.PAVEMENT)
    landmark(canvas, rng, palette, angle, 0.62)
    for block in blocks:
        if rng.random() < 0.08:
            canvas.pave(block, Ground.PLAZA)
            continue
        eaves = float(rng.uniform(7, 15))
        for (ax, ay), (bx, by) in zip(block, block[1:] + block[:1], strict=True):
            length, turn = float(np.hypot(bx - ax, by - ay)), float(np.arctan2(by - ay, bx - ax))
            count = max(1, round(length / rng.uniform(9, 20)))
            half_u = length / count / 2
            for plot in range(count if length > 6 else 0):
                if rng.random() < 0.06:
                    continue
                centre = frame((ax, ay), turn, (2 * plot + 1) * half_u, depth / 2 + 0.8)
                if canvas.is_free(rectangle(centre, turn, half_u * 0.5, 0.5), BARRED):
                    structures.mass(
                        canvas,
                        rng,
                        palette,
                        centre,
                        turn,
                        (half_u + 0.4, depth / 2 / 0.6),
                        eaves + float(rng.uniform(-2, 2)),
                        "bar",
                        bool(rng.random() < 0.85),
                    )
    grounds.woods(canvas, rng, int(rng.uniform(900, 2600)), 40)


DISTRICTS: tuple[Callable[[Canvas, np.random.Generator, Palette, float], None], ...] = (
    downtown, suburb, industry, campus, old_town,
)  # fmt: skip
