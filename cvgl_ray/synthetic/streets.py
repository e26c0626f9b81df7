"""Streets and the lots between them."""

from dataclasses import dataclass

import numpy as np

from cvgl_ray.synthetic import grounds, structures
from cvgl_ray.synthetic.canvas import (
    CELL_M,
    HALF_M,
    Canvas,
    Ground,
    Point,
    frame,
    rectangle,
    stations,
)

REACH = 1.5 * HALF_M  # far enough for a turned street to cross the whole world


@dataclass(frozen=True)
class Lot:
    """A turned rectangle to be used; half sizes in metres."""

    centre: Point
    angle: float
    half: Point


def street(canvas: Canvas, rng: np.random.Generator, line: list[Point], width_m: float) -> None:
    """A carriageway between pavements, with lane marks, trees and slots for cars if it is wide."""
    canvas.road(line, width_m + 4.0, Ground.PAVEMENT)
    canvas.road(line, width_m, Ground.ASPHALT)
    if width_m > 9:
        for x, y, heading in stations(line, 9.0, 0.0, canvas.half_m).tolist():
            canvas.road([(x, y), frame((x, y), heading, 4.0, 0.0)], CELL_M, Ground.PAINT)
    canvas.slots.extend(stations(line, 6.2, side * (width_m / 2 - 1.3), canvas.half_m) for side in (-1, 1))
    if rng.random() < 0.6:
        spacing = float(rng.uniform(8, 15))
        for side in (-1, 1):
            grounds.plant(
                canvas, rng, stations(line, spacing, side * (width_m / 2 + 2.2), canvas.half_m)[:, :2]
            )


def grid(
    canvas: Canvas, rng: np.random.Generator, angle: float, block: Point, width: Point, bend_m: float
) -> list[Lot]:
    """Streets of two directions about blocks of varying size, the centre within one; returns the lots.

    With a bend all streets wave together, and blocks come back as short lots that follow the wave.
    """
    edges: list[np.ndarray] = []
    for size in block:
        steps = size * rng.uniform(0.7, 1.35, 24)
        cuts = np.concatenate([[0.0], np.cumsum(steps)])
        edges.append(cuts - cuts[12] - steps[12] * rng.uniform(0.35, 0.65))
    wave, phase = rng.uniform(38, 75), rng.uniform(0, 2 * np.pi)

    def bent(u: float, v: float) -> Point:
        return frame((0, 0), angle, u, v + bend_m * float(np.sin(u / wave + phase) - np.sin(phase)))

    for axis, cuts in enumerate(edges):
        for cut in cuts[np.abs(cuts) < REACH].tolist():
            along = np.linspace(-REACH, REACH, 2 if bend_m == 0 or axis == 0 else 36).tolist()
            line = [bent(u, cut) if axis else bent(cut, u) for u in along]
            street(canvas, rng, line, float(rng.uniform(*width)))
    lots = []
    margin = width[1] / 2 + 2.5
    for u0, u1 in zip((edges[0] + margin).tolist(), (edges[0][1:] - margin).tolist(), strict=False):
        for v0, v1 in zip((edges[1] + margin).tolist(), (edges[1][1:] - margin).tolist(), strict=False):
            pieces = max(1, round((u1 - u0) / 26.0)) if bend_m else 1
            half = ((u1 - u0) / pieces / 2, (v1 - v0) / 2)
            for piece in range(pieces if min(half) > 5 else 0):
                u, v = u0 + (2 * piece + 1) * half[0], (v0 + v1) / 2
                slope = bend_m / wave * float(np.cos(u / wave + phase))
                lots.append(Lot(bent(u, v), angle + float(np.arctan(slope)), half))
    return [lot for lot in lots if max(abs(lot.centre[0]), abs(lot.centre[1])) < HALF_M + 30]


def split(rng: np.random.Generator, lot: Lot, size_m: float) -> list[Lot]:
    """Cut a lot into plots of about a size, side by side."""
    counts = [max(1, round(2 * half / (size_m * rng.uniform(0.8, 1.25)))) for half in lot.half]
    half = (lot.half[0] / counts[0], lot.half[1] / counts[1])
    return [
        Lot(
            frame(
                lot.centre, lot.angle, (2 * i + 1 - counts[0]) * half[0], (2 * j + 1 - counts[1]) * half[1]
            ),
            lot.angle,
            half,
        )
        for i in range(counts[0])
        for j in range(counts[1])
    ]


def shrunk(rng: np.random.Generator, lot: Lot, low: float, high: float) -> Lot:
    """The lot with each side scaled by a draw from [low, high]."""
    return Lot(
        lot.centre,
        lot.angle,
        (lot.half[0] * float(rng.uniform(low, high)), lot.half[1] * float(rng.uniform(low, high))),
    )


def build(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: structures.Palette,
    lot: Lot,
    eaves_m: float,
    pitched: bool,
    shape: str,
) -> None:
    """A building on a lot whose ground is free."""
    if min(lot.half) > 3 and canvas.is_free(rectangle(lot.centre, lot.angle, *lot.half), structures.BARRED):
        structures.mass(canvas, rng, palette, lot.centre, lot.angle, lot.half, eaves_m, shape, pitched)


def clip(polygon: list[Point], normal: Point, offset: float) -> list[Point]:
    """The part of a convex polygon where `normal . point <= offset`."""
    kept: list[Point] = []
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b = (normal[0] * x + normal[1] * y - offset for x, y in ((ax, ay), (bx, by)))
        if a <= 0:
            kept.append((ax, ay))
        if (a <= 0) != (b <= 0):
            share = a / (a - b)
            kept.append((ax + share * (bx - ax), ay + share * (by - ay)))
    return kept


def crooked_blocks(rng: np.random.Generator, spacing_m: float, lane_m: float) -> list[list[Point]]:
    """Convex blocks between crooked lanes: Voronoi cells of a shaken lattice, drawn in by half a lane."""
    axis = np.arange(-HALF_M - spacing_m, HALF_M + 2 * spacing_m, spacing_m)
    sites = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    sites = sites + rng.uniform(-0.4, 0.4, sites.shape) * spacing_m
    sites -= sites[np.argmin(np.hypot(*sites.T))]  # the target's block is the one at the origin
    blocks = []
    for site in sites:
        apart = sites - site
        distance = np.hypot(*apart.T)
        polygon = [
            (float(site[0] + x), float(site[1] + y)) for x, y in ((-99, -99), (99, -99), (99, 99), (-99, 99))
        ]
        for other in np.flatnonzero((distance > 0) & (distance < 2.9 * spacing_m)):
            normal = apart[other] / distance[other]
            offset = float(normal @ site) + float(distance[other]) / 2 - lane_m / 2
            polygon = clip(polygon, (float(normal[0]), float(normal[1])), offset)
            if len(polygon) < 3:
                break
        if len(polygon) >= 3:
            blocks.append(polygon)
    return blocks
