"""A square kilometre and more: neighbourhoods and open country side by side, between arterial roads."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import Voronoi

from cvgl_ray.synthetic.canvas import HALF_M, Canvas, Ground, Point, frame, rectangle, stations
from cvgl_ray.synthetic.districts import campus, downtown, industry, old_town, suburb
from cvgl_ray.synthetic.farmland import farmland
from cvgl_ray.synthetic.fields import FloatField, fractal_noise
from cvgl_ray.synthetic.grounds import plant
from cvgl_ray.synthetic.streets import street
from cvgl_ray.synthetic.structures import Palette, draw_palette
from cvgl_ray.synthetic.world import World, raise_world

CELL_M = 0.4
SPACING_M = 400.0  # between the middles of quarters; each is drawn 2 * HALF_M wide
BROOK_SHARE = 0.6  # of all regions
SHAKE_M = 30.0  # of a middle: so that what is drawn of each reaches its bounds
QUARTERS: tuple[Callable[[Canvas, np.random.Generator, Palette, float], None], ...] = (
    downtown, old_town, campus, industry, suburb, suburb, farmland, farmland, farmland,
)  # fmt: skip


@dataclass(frozen=True)
class Region:
    """A world, its bare ground, and its fields."""

    world: World
    terrain: FloatField  # [S, S] metres: the ground without buildings and trees
    parcel: NDArray[np.int32]  # [S, S] 0: nothing that is farmed, else a field's number


def build_region(rng: np.random.Generator, quarters: int = 3) -> Region:
    """Draw quarters of different character, so many along each side, and raise them on rolling ground."""
    canvas = Canvas(quarters * SPACING_M / 2, CELL_M)
    parcel = Image.new("I", canvas.ground.size, 0)
    steps = np.arange(quarters) - (quarters - 1) / 2
    middles = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2) * SPACING_M
    middles += rng.uniform(-SHAKE_M, SHAKE_M, middles.shape)
    owner = _nearest(middles, canvas)
    kinds = np.concatenate([rng.permutation(len(QUARTERS)) for _ in range(0, len(middles), len(QUARTERS))])
    for index, kind in enumerate(kinds[: len(middles)].tolist()):
        quarter = Canvas(HALF_M, CELL_M)
        QUARTERS[kind](quarter, rng, draw_palette(rng), float(rng.uniform(0, np.pi)))
        _lay(canvas, parcel, quarter, (float(middles[index, 0]), float(middles[index, 1])), owner == index)
    if rng.random() < BROOK_SHARE:
        bends = _brook(rng, canvas.half_m)
        _make_way(canvas, bends, float(rng.uniform(9, 26)), 6.0, Ground.GRASS)
        canvas.road(bends, float(rng.uniform(6, 22)), Ground.WATER)
        for side in (-1, 1):
            plant(canvas, rng, stations(bends, 7.0, side * 15.0, canvas.half_m)[:, :2])
    for line in _arterials(middles):
        width = float(rng.uniform(9.5, 15))
        _make_way(canvas, line, width + 6.0, 0.0, Ground.GRASS)
        street(canvas, rng, line, width)
    waves = fractal_noise(rng, canvas.cells, float(rng.uniform(350, 900)) / CELL_M, 2)
    terrain = waves * np.float32(rng.uniform(1.0, 4.0))
    terrain -= terrain.min()
    terrain[np.asarray(canvas.ground) == Ground.WATER] -= 0.8
    fields = np.where(np.asarray(canvas.ground) == Ground.GRASS, np.asarray(parcel, np.int32), 0)
    return Region(_without_hidden_slots(raise_world(canvas, terrain, rng), terrain), terrain, fields)


def _nearest(middles: NDArray[np.float64], canvas: Canvas) -> NDArray[np.int8]:
    """The number of the nearest middle [S, S]."""
    axis = ((np.arange(canvas.cells) + 0.5) * CELL_M - canvas.half_m).astype(np.float32)
    best = np.full((canvas.cells, canvas.cells), np.inf, np.float32)
    owner = np.zeros(best.shape, np.int8)
    for index, (x, y) in enumerate(middles.astype(np.float32)):
        apart = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
        closer = apart < best
        owner[closer], best[closer] = index, apart[closer]
    return owner


def _lay(canvas: Canvas, parcel: Image.Image, quarter: Canvas, middle: Point, own: NDArray[np.bool_]) -> None:
    """Copy a quarter about a point of the region, as far as it owns the ground [S, S]."""
    corner = [round((at - HALF_M + canvas.half_m) / CELL_M) for at in middle]
    shift = np.array(corner) * CELL_M + HALF_M - canvas.half_m
    box = (corner[0], corner[1], corner[0] + quarter.cells, corner[1] + quarter.cells)
    mask = Image.fromarray(own).crop(box)
    canvas.ground.paste(quarter.ground, box, mask)
    building = np.asarray(quarter.building, np.int32)
    numbered = np.where(building > 0, building + len(canvas.buildings), 0).astype(np.int32)
    canvas.building.paste(Image.fromarray(numbered), box, mask)
    fields = Image.new("I", quarter.ground.size, 0)
    pen = ImageDraw.Draw(fields)
    for polygon in quarter.parcels:
        canvas.parcels.append([(x + shift[0], y + shift[1]) for x, y in polygon])
        pen.polygon(quarter.at(polygon), len(canvas.parcels))
    parcel.paste(fields, box, mask)
    canvas.buildings += [
        dataclasses.replace(b, centre=(b.centre[0] + shift[0], b.centre[1] + shift[1]))
        for b in quarter.buildings
    ]
    for kind, width in (("trees", 4), ("slots", 3)):
        rows = np.concatenate([np.empty((0, width)), *getattr(quarter, kind)])
        rows[:, :2] += shift
        getattr(canvas, kind).append(rows[_looked_up(own, rows[:, :2])])


def _without_hidden_slots(world: World, terrain: FloatField) -> World:
    """The world whose cars stand in the open alone: under a tree they would be painted on its crown."""
    is_open = world.height - terrain < 0.3
    slots = world.slots.astype(np.float64)
    along = np.stack([np.cos(slots[:, 2]), np.sin(slots[:, 2])], -1)
    free = [_looked_up(is_open, slots[:, :2] + offset_m * along) for offset_m in (-2.2, 0.0, 2.2)]
    return dataclasses.replace(world, slots=world.slots[np.all(free, axis=0)])


def _looked_up(mask: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mask's values [K] at points [K, 2]; false outside of the region."""
    cells = np.floor(points / CELL_M + len(mask) / 2).astype(np.int64)
    inside = ((cells >= 0) & (cells < len(mask))).all(axis=1)
    cols, rows = cells.clip(0, len(mask) - 1).T
    return inside & mask[rows, cols]


def _make_way(canvas: Canvas, line: list[Point], width_m: float, verge_m: float, verge: Ground) -> None:
    """Take buildings, trees and cars away from a band along a line."""
    band = Image.new("1", canvas.ground.size, 0)
    pen = ImageDraw.Draw(band)
    for (ax, ay), (bx, by) in pairwise(line):
        half, turn = float(np.hypot(bx - ax, by - ay)) / 2, float(np.arctan2(by - ay, bx - ax))
        piece = rectangle(((ax + bx) / 2, (ay + by) / 2), turn, half + width_m / 2, width_m / 2 + verge_m)
        canvas.clear(piece)
        pen.polygon(canvas.at(piece), 1)
    canvas.road(line, width_m + 2 * verge_m, verge)
    free = ~np.asarray(band)
    canvas.trees = [rows[_looked_up(free, rows[:, :2])] for rows in canvas.trees]
    canvas.slots = [rows[_looked_up(free, rows[:, :2])] for rows in canvas.slots]


def _brook(rng: np.random.Generator, half_m: float) -> list[Point]:
    """A winding line from one side of the region to another."""
    heading, aside = float(rng.uniform(0, np.pi)), float(rng.uniform(-0.4, 0.4)) * half_m
    along = np.linspace(-1.5, 1.5, 80) * half_m
    swing = 45 * np.sin(along / rng.uniform(70, 140) + rng.uniform(0, 6)) + 14 * np.sin(along / 31)
    return [frame((0, 0), heading, u, aside + v) for u, v in zip(along.tolist(), swing.tolist(), strict=True)]


def _arterials(middles: NDArray[np.float64]) -> list[list[Point]]:
    """The lines between neighbouring quarters: the edges of their Voronoi cells."""
    turns = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    far = 20 * SPACING_M * np.stack([np.cos(turns), np.sin(turns)], -1)  # closes the outer cells
    cells = Voronoi(np.concatenate([middles, far]))
    lines = []
    for between, (a, b) in zip(cells.ridge_points, cells.ridge_vertices, strict=True):
        if max(between) < len(middles) and min(a, b) >= 0:
            lines.append([(float(x), float(y)) for x, y in cells.vertices[[a, b]]])
    return lines
