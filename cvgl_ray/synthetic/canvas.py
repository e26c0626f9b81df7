"""The plan of a place while it is being drawn: ground, building footprints, trees, parking slots."""

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CELLS = 672  # side of a place's square world, in cells
CELL_M = 0.7  # side of its cells, in metres
HALF_M = CELLS * CELL_M / 2  # it reaches this far from the place's centre

Point = tuple[float, float]  # metres: x to the east, y to the south, the place's centre at the origin
Colour = tuple[int, int, int]


class Ground(IntEnum):
    """Material of a ground cell."""

    GRASS = 0
    ASPHALT = 1
    PAVEMENT = 2
    GRAVEL = 3
    WATER = 4
    SOIL = 5
    TURF = 6
    TRACK = 7
    PAINT = 8
    PLAZA = 9
    PARKING = 10
    POOL = 11


class Roof(IntEnum):
    """Shape of a roof above its eaves."""

    FLAT = 0
    GABLE = 1
    HIP = 2
    DOME = 3
    VAULT = 4


@dataclass(frozen=True)
class Building:
    """One prism: its local frame (centre, angle in radians, half sizes in metres), its roof and its faces."""

    centre: Point
    angle: float
    half_u: float
    half_v: float
    eaves_m: float
    roof: Roof
    roof_rgb: Colour
    wall_rgb: Colour
    rise_m: float = 0.0  # from the eaves to the ridge
    rib_m: float = 0.0  # period of the stripes along the roof; 0: none
    bay_m: float = 3.0  # width of a window bay; 0: a blind wall


def frame(centre: Point, angle: float, u: float, v: float) -> Point:
    """The point (u, v) of the local frame at `centre`, turned by `angle`, in world metres."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return centre[0] + u * cos - v * sin, centre[1] + u * sin + v * cos


def rectangle(centre: Point, angle: float, half_u: float, half_v: float) -> list[Point]:
    """The four corners of a turned rectangle, in order."""
    corners = ((-half_u, -half_v), (half_u, -half_v), (half_u, half_v), (-half_u, half_v))
    return [frame(centre, angle, u, v) for u, v in corners]


def stations(
    line: list[Point], spacing_m: float, aside_m: float, half_m: float = HALF_M
) -> NDArray[np.float64]:
    """Points at equal steps along each piece of a polyline, `aside_m` to its side: [K, 3] x, y, heading.

    Those outside the world, which reaches `half_m` from its centre, are left out.
    """
    found = [np.empty((0, 3))]
    for (ax, ay), (bx, by) in pairwise(line):
        length, heading = float(np.hypot(bx - ax, by - ay)), float(np.arctan2(by - ay, bx - ax))
        along = np.arange(spacing_m / 2, length, spacing_m)
        x = ax + along * np.cos(heading) - aside_m * np.sin(heading)
        y = ay + along * np.sin(heading) + aside_m * np.cos(heading)
        found.append(np.stack([x, y, np.full_like(x, heading)], -1))
    points = np.concatenate(found)
    return points[np.abs(points[:, :2]).max(axis=1) < half_m]


def ellipse(
    centre: Point, half_u: float, half_v: float, angle: float = 0.0, corners: int = 28
) -> list[Point]:
    """A polygon that stands for an ellipse."""
    turns = np.linspace(0.0, 2 * np.pi, corners, endpoint=False)
    return [frame(centre, angle, half_u * float(np.cos(t)), half_v * float(np.sin(t))) for t in turns]


class Canvas:
    """Drawing surface in metres; `building` holds 0 for open ground or 1 + the index into `buildings`.

    It is a square that reaches `half_m` from its centre, of cells of `cell_m`.
    """

    def __init__(self, half_m: float = HALF_M, cell_m: float = CELL_M) -> None:
        self.half_m, self.cell_m = half_m, cell_m
        self.cells = round(2 * half_m / cell_m)
        self.ground = Image.new("L", (self.cells, self.cells), int(Ground.GRASS))
        self.building = Image.new("I", (self.cells, self.cells), 0)
        self.buildings: list[Building] = []
        self.trees: list[NDArray[np.float64]] = []  # [K, 4] x, y, crown radius, height
        self.parcels: list[list[Point]] = []  # polygons of fields, each farmed as one
        self.slots: list[NDArray[np.float64]] = []  # [K, 3] x, y, heading of places for cars
        self._ground = ImageDraw.Draw(self.ground)
        self._building = ImageDraw.Draw(self.building)
        ground_at, building_at = self.ground.load(), self.building.load()
        assert ground_at is not None
        assert building_at is not None
        self._ground_at, self._building_at = ground_at, building_at

    def at(self, points: list[Point]) -> list[Point]:
        """The points' columns and rows in cells."""
        return [((x + self.half_m) / self.cell_m, (y + self.half_m) / self.cell_m) for x, y in points]

    def pave(self, polygon: list[Point], material: Ground) -> None:
        """Cover a polygon of the ground."""
        self._ground.polygon(self.at(polygon), fill=int(material))

    def road(self, line: list[Point], width_m: float, material: Ground) -> None:
        """Cover a band of constant width along a polyline."""
        width = max(1, round(width_m / self.cell_m))
        self._ground.line(self.at(line), fill=int(material), width=width, joint="curve")

    def erect(self, building: Building, footprints: list[list[Point]]) -> None:
        """Stand a building on the union of some polygons."""
        self.buildings.append(building)
        for polygon in footprints:
            self._building.polygon(self.at(polygon), fill=len(self.buildings))

    def clear(self, polygon: list[Point]) -> None:
        """Take buildings away from a polygon: a courtyard, or a river bed."""
        self._building.polygon(self.at(polygon), fill=0)

    def materials(self, points: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The ground's materials [K] at points [K, 2] inside the world."""
        cols, rows = ((points + self.half_m) / self.cell_m).astype(np.int32).T
        return np.asarray(self.ground)[rows, cols]

    def is_free(self, polygon: list[Point], barred: frozenset[Ground]) -> bool:
        """Whether corners, edge middles and centre lie on unbuilt ground of no barred material."""
        middle = (sum(x for x, _ in polygon) / len(polygon), sum(y for _, y in polygon) / len(polygon))
        following = polygon[1:] + polygon[:1]
        halves = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in zip(polygon, following, strict=True)]
        barred_codes: frozenset[object] = frozenset(map(int, barred))
        for x, y in self.at([middle, *polygon, *halves]):
            if not (0 <= x < self.cells and 0 <= y < self.cells):
                return False
            cell = int(x), int(y)
            if self._ground_at[cell] in barred_codes or self._building_at[cell]:
                return False
        return True
