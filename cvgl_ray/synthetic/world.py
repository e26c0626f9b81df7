"""One place of the procedural world: a drawn plan turned into height, colour and facade rasters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl_ray.synthetic.canvas import CELL_M, CELLS, Canvas, Ground, Roof
from cvgl_ray.synthetic.districts import DISTRICTS
from cvgl_ray.synthetic.fields import FloatField, box_mean, fractal_noise
from cvgl_ray.synthetic.grounds import river
from cvgl_ray.synthetic.structures import draw_palette

GROUND_RGB = np.array(
    [
        (106, 118, 74), (98, 98, 100), (158, 154, 146), (178, 160, 128), (50, 76, 84), (150, 128, 98),
        (84, 140, 66), (160, 86, 68), (222, 222, 214), (186, 166, 146), (86, 86, 90), (96, 178, 196),
    ],
    np.float32,
)  # fmt: skip
GRAIN = np.array([0.07, 0.05, 0.04, 0.06, 0.03, 0.09, 0.05, 0.03, 0.02, 0.05, 0.06, 0.03], np.float32)
BLOTCH = np.array([0.14, 0.06, 0.05, 0.08, 0.05, 0.16, 0.05, 0.03, 0.02, 0.05, 0.08, 0.0], np.float32)
BLOTCH_M = 49.0  # size of the patches within one material
RIVER_SHARE = 0.3  # of all places


@dataclass(frozen=True)
class World:
    """Rasters of a square, [S, S, ...], row 0 in the north, column 0 in the west."""

    height: FloatField  # metres above the lowest ground, of whatever is on top
    albedo: NDArray[np.uint8]  # [.., 3] colour of the top under white light
    plants: FloatField  # 1 where the top is grass or leaves, else 0
    facing: FloatField  # radians: heading of the outward horizontal normal, in steps of 22.5 degrees
    building: NDArray[np.int32]  # 0: none, else 1 + row of the tables below
    base_m: FloatField  # [B] height at which each building's walls start
    wall_rgb: FloatField  # [B, 3]
    bay_m: FloatField  # [B] width of a window bay; 0: a blind wall
    slots: FloatField  # [K, 3] x, y (metres) and heading of every place where a car may stand
    cell_m: float = CELL_M

    @property
    def half_m(self) -> float:
        """Metres from the centre to each side."""
        return len(self.height) * self.cell_m / 2


def build_world(rng: np.random.Generator) -> World:
    """Draw a neighbourhood with a landmark in its middle, and raise it on gently rolling ground."""
    canvas, palette = Canvas(), draw_palette(rng)
    DISTRICTS[int(rng.integers(len(DISTRICTS)))](canvas, rng, palette, float(rng.uniform(0, np.pi)))
    if rng.random() < RIVER_SHARE:
        river(canvas, rng)
    terrain = fractal_noise(rng, CELLS, CELLS * float(rng.uniform(0.4, 1.2)), 2) * float(
        rng.uniform(0.3, 3.5)
    )
    terrain -= terrain.min()
    terrain[np.asarray(canvas.ground) == Ground.WATER] = terrain.min()
    return raise_world(canvas, terrain, rng)


def raise_world(canvas: Canvas, terrain: FloatField, rng: np.random.Generator) -> World:
    """Put a plan's buildings and trees on bare ground of these heights [S, S], and colour it all."""
    ground = np.asarray(canvas.ground)
    building = np.asarray(canvas.building, np.int32).copy()
    base = _base_heights(canvas, terrain)
    grain = rng.standard_normal(terrain.shape, np.float32)
    blotch = fractal_noise(rng, canvas.cells, BLOTCH_M / canvas.cell_m, 4)
    tint = rng.normal(1.0, 0.06, (len(GROUND_RGB), 3)).astype(np.float32)
    tint *= rng.normal(1.0, 0.15, (len(GROUND_RGB), 1)).astype(np.float32)
    albedo = (GROUND_RGB * tint)[ground] * (1 + GRAIN[ground] * grain + BLOTCH[ground] * blotch)[..., None]
    height = terrain.copy()
    _raise_roofs(canvas, building, base, height, albedo, grain)
    plants = ((ground == Ground.GRASS) & (building == 0)).astype(np.float32)
    _grow_trees(canvas, rng, terrain, height, albedo, plants, building)
    south, east = np.gradient(box_mean(height, 1))
    facing = np.round(np.arctan2(-south, -east) / (np.pi / 8)) * (np.pi / 8)
    return World(
        height=height,
        albedo=np.clip(albedo, 4, 252).astype(np.uint8),
        plants=plants,
        facing=facing.astype(np.float32),
        building=building,
        base_m=base,
        wall_rgb=np.array([b.wall_rgb for b in canvas.buildings], np.float32),
        bay_m=np.array([b.bay_m for b in canvas.buildings], np.float32),
        slots=np.concatenate([np.empty((0, 3)), *canvas.slots]).astype(np.float32),
        cell_m=canvas.cell_m,
    )


def _base_heights(canvas: Canvas, terrain: FloatField) -> FloatField:
    """Ground height [B] under each building's centre, in metres."""
    centres = np.array([b.centre for b in canvas.buildings])
    cells = np.clip((centres + canvas.half_m) / canvas.cell_m, 0, canvas.cells - 1).astype(np.int32)
    return terrain[cells[:, 1], cells[:, 0]]


def _raise_roofs(
    canvas: Canvas,
    building: NDArray[np.int32],
    base: FloatField,
    height: FloatField,
    albedo: FloatField,
    grain: FloatField,
) -> None:
    """Write the roofs' heights and colours into `height` and `albedo`."""
    rows, cols = np.nonzero(building)
    owner = building[rows, cols] - 1
    table = np.array(
        [
            (
                *b.centre,
                np.cos(b.angle),
                np.sin(b.angle),
                b.half_u,
                b.half_v,
                b.eaves_m,
                b.rise_m,
                b.roof,
                b.rib_m,
            )
            for b in canvas.buildings
        ],
        np.float32,
    )
    x, y, cos, sin, half_u, half_v, eaves, rise, roof, rib = table[owner].T
    east, south = ((at + 0.5) * canvas.cell_m - canvas.half_m for at in (cols, rows))
    east, south = east - x, south - y
    u, v = east * cos + south * sin, south * cos - east * sin
    across = np.clip(1 - np.abs(v) / half_v, 0, 1)
    ends = np.clip((half_u - np.abs(u)) / half_v, 0, 1)
    rounded = np.sqrt(np.clip(1 - (v / half_v) ** 2, 0, 1))
    dome = np.sqrt(np.clip(1 - (u / half_u) ** 2 - (v / half_v) ** 2, 0, 1))
    shape = np.select(
        [roof == Roof.GABLE, roof == Roof.HIP, roof == Roof.DOME, roof == Roof.VAULT],
        [across, np.minimum(across, ends), dome, rounded],
        0.0,
    )
    height[rows, cols] = base[owner] + eaves + rise * shape
    ribs = np.where(rib > 0, 0.1 * np.sign(np.sin(2 * np.pi * u / np.maximum(rib, 1))), 0.0)
    stain = 1 + ribs + 0.045 * grain[rows, cols]
    colours = np.array([b.roof_rgb for b in canvas.buildings], np.float32)
    albedo[rows, cols] = colours[owner] * stain[:, None]


def _grow_trees(
    canvas: Canvas,
    rng: np.random.Generator,
    terrain: FloatField,
    height: FloatField,
    albedo: FloatField,
    plants: FloatField,
    building: NDArray[np.int32],
) -> None:
    """Write the crowns of the trees over what is lower than they are."""
    leaves = np.array([(58, 82, 40), (78, 100, 50), (44, 66, 42), (96, 104, 56), (70, 74, 44)], np.float32)
    leaves = leaves[rng.choice(len(leaves), 3, replace=False)] * rng.normal(1.0, 0.12, 3).astype(np.float32)
    side = max(64, 40 + int(11 / canvas.cell_m) + 3)  # 40 beginnings, and the widest crown
    noise = rng.normal(0.0, 0.22, (side, side)).astype(np.float32)
    trees = np.concatenate([np.empty((0, 4)), *canvas.trees])
    kinds, shades = rng.integers(3, size=len(trees)), rng.normal(1.0, 0.1, len(trees))
    cells = np.arange(canvas.cells) + 0.5
    for (x, y, radius, tall), kind, shade in zip(
        trees.tolist(), kinds.tolist(), shades.tolist(), strict=True
    ):
        col, row, reach = (np.array((x + canvas.half_m, y + canvas.half_m, radius)) / canvas.cell_m).tolist()
        r0, r1 = max(0, int(row - reach)), min(canvas.cells, int(row + reach) + 2)
        c0, c1 = max(0, int(col - reach)), min(canvas.cells, int(col + reach) + 2)
        window = np.s_[r0:r1, c0:c1]
        off = ((cells[r0:r1] - row) / reach)[:, None] ** 2 + ((cells[c0:c1] - col) / reach)[None, :] ** 2
        ragged = noise[r0 % 40 :, c0 % 40 :][: r1 - r0, : c1 - c0]
        ground = terrain[int(row), int(col)]
        crown = (ground + tall * (0.45 + 0.55 * np.sqrt(np.maximum(1 - off, 0))) + ragged).astype(np.float32)
        on_top = (off < 1 + 0.5 * ragged) & (crown > height[window])
        height[window][on_top] = crown[on_top]
        albedo[window][on_top] = leaves[kind] * shade * (0.9 + 0.5 * ragged[on_top])[:, None]
        plants[window][on_top] = 1.0
        building[window][on_top] = 0
