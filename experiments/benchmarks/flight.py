"""A flight over a map: frozen, adapted, fitted; errors in metres, confidence, and seconds by part.

python experiments/benchmarks/flight.py MAP PHOTOS TRUTH --backbone mobilenetv2_100 --checkpoint FILE
    [--elsewhere FOLDER] [--limit N] [--side-px 224] [--rounds 1] [--threads 2]

TRUTH: image_id, latitude, longitude; it is read after everything else. --elsewhere: photos that lie nowhere
on the map and are localised among the flight's own. The frozen model is timm's, with its own mean and
deviation unless --mean and --std say otherwise.
"""

import csv
import functools
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import timm
import torch
from PIL import Image

from cvgl_ray.alignment import flight
from cvgl_ray.alignment.adaptation import Adapted, adapt
from cvgl_ray.alignment.confidence import FOUND
from cvgl_ray.alignment.locate import Place, locate, start_pose
from cvgl_ray.alignment.map_cells import Forward, extract
from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.scales import Scale, photo_sides, plan_scales, resolutions
from cvgl_ray.alignment.turned import photo_cells
from cvgl_ray.features.folding import fold_batch_norms
from cvgl_ray.maps.geomap import GeoMap, open_map
from cvgl_ray.maps.masks import black_surround

HEADINGS = [30.0 * step for step in range(12)]
STRIDE = 16
seconds: dict[str, float] = {}


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Adds the wall seconds of a part."""
    start = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start


def frozen(backbone: str, checkpoint: str, mean: float, std: float) -> Forward:
    """The layer of STRIDE px per cell of a timm model, as a function of pictures [B, 3, H, W] uint8."""
    flexible = {"dynamic_img_size": True} if "vit" in backbone else {}
    if checkpoint.startswith("package:"):
        from cvgl_ray.features.packaged import packaged_state

        model = timm.create_model(backbone, num_classes=0)
        model.load_state_dict(packaged_state(checkpoint), strict=False)
    else:
        model = timm.create_model(backbone, num_classes=0, checkpoint_path=checkpoint, **flexible)
    data = timm.data.resolve_model_data_config(model)
    shift, spread = (
        torch.tensor([given] * 3 if given else own).view(1, 3, 1, 1) * 255
        for given, own in ((mean, data["mean"]), (std, data["std"]))
    )
    reductions = [int(info["reduction"]) for info in model.feature_info]
    layer = max(i for i, reduction in enumerate(reductions) if reduction <= STRIDE)
    if len(set(reductions)) == 1:
        layer = round(0.75 * len(reductions)) - 1
    model.eval().to(memory_format=torch.channels_last)

    def maps(pictures: torch.Tensor) -> torch.Tensor:
        prepared = (pictures.float() - shift) / spread
        [found] = model.forward_intermediates(
            prepared.to(memory_format=torch.channels_last),
            indices=[layer],
            intermediates_only=True,
            stop_early=True,
        )
        return found

    fold_batch_norms(model, lambda: [maps(torch.randint(0, 255, (2, 3, 224, 224), dtype=torch.uint8))])
    return maps


def read_photo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and the mask of valid ones; a large JPEG is decoded at a fraction of its size."""
    image = Image.open(path)
    image.draft("RGB", (1000, 750))
    rgb = np.array(image.convert("RGB"))
    return rgb, black_surround(rgb)


def errors(places: list[tuple[float, float]], ids: list[str], truth: Path, geomap: GeoMap) -> np.ndarray:
    """Metres from the truth, inf where there is none."""
    with truth.open() as lines:
        rows = {row["image_id"]: row for row in csv.DictReader(lines)}
    out = []
    for name, place in zip(ids, places, strict=True):
        if name not in rows:
            out.append(math.inf)
            continue
        east, north = geomap.frame.to_local(float(rows[name]["latitude"]), float(rows[name]["longitude"]))
        out.append(math.dist(place, (east, north)))
    return np.array(out)


def line(title: str, error: np.ndarray, confidence: np.ndarray, own: np.ndarray) -> None:
    """One row: shares within metres and the median of the flight's photos, what is found, what wrongly."""
    mine, found = error[own], confidence >= 0.5
    shares = " ".join(f"{100 * (mine <= limit).mean():5.1f}" for limit in (5, 10, 25, 50, 100))
    right = own & (error <= 100)
    text = f"{title:22s} | {shares} | {np.median(mine):6.1f} | found {100 * found[own].mean():5.1f}"
    text += f", right of them {100 * right[own & found].mean():5.1f}"
    if right.any() and (~own).any():
        level = np.quantile(confidence[right], 0.1)
        strangers = confidence[~own]
        wins = (confidence[right][:, None] > strangers).mean() + (
            confidence[right][:, None] == strangers
        ).mean() / 2
        text += f" | elsewhere: found {100 * (strangers >= 0.5).mean():.1f},"
        text += f" at 90 % of the right {100 * (strangers > level).mean():.1f}, AUROC {wins:.3f}"
    print(text, flush=True)


class Data(NamedTuple):
    """The map and the photos, with their cells. own: which photos are the flight's; ids: "" of the others."""

    geomap: GeoMap
    scales: list[Scale]
    levels: flight.Levels
    photos: flight.Photos
    pictures: list[tuple[np.ndarray, np.ndarray]]
    ids: list[str]
    own: np.ndarray


def load(map_path: str, paths: list[Path], strangers: list[Path], side_px: int, forward: Forward) -> Data:
    """All cells, timed."""
    geomap = open_map(map_path)
    scales = plan_scales(geomap.metres_per_pixel, side_px)
    print(f"{geomap.area_m2 / 1e6:.2f} km2, {len(paths)} photos, {len(strangers)} from elsewhere;", end=" ")
    print(
        "sides", [round(scale.side_m) for scale in scales], "m at", [scale.side_px for scale in scales], "px"
    )
    with timed("map cells"):
        levels = {
            size: extract(geomap.read, geomap.bounds, size, forward, STRIDE) for size in resolutions(scales)
        }
    photos: flight.Photos = {side: [] for side in photo_sides(scales)}
    pictures = []
    for path in [*paths, *strangers]:
        with timed("photos read"):
            pictures.append(read_photo(path))
        with timed("photo cells"):
            for side, held in photos.items():
                held.append(photo_cells(*pictures[-1], side, HEADINGS, forward, STRIDE))
    ids = [path.name for path in paths] + ["" for _ in strangers]
    return Data(geomap, scales, levels, photos, pictures, ids, np.array([name != "" for name in ids]))


def search_all(data: Data, rounds: int) -> Adapted:
    """The frozen search, and after each round of learning another."""

    def search(adapter: CellAdapter) -> list[Peaks]:
        with timed("search"):
            return flight.shard_peaks(data.photos, data.levels, data.scales, adapter)

    pairs = functools.partial(flight.shard_pairs, data.photos, data.levels, data.scales)
    samples = flight.cell_samples(data.photos, data.levels)
    return adapt(search, pairs, samples, data.scales, rounds=rounds)


def fitted(data: Data, result: Adapted, forward: Forward) -> list[Place]:
    """The places of the flight's own photos."""
    own = np.flatnonzero(data.own)
    with timed("fit"):
        return [
            locate(
                *data.pictures[number],
                start_pose(result.found, number, data.scales, HEADINGS),
                float(result.found.confidence[number]),
                data.geomap.read,
                data.geomap.metres_per_pixel,
                forward,
                STRIDE,
                result.adapter.attenuation,
            )
            for number in own.tolist()
        ]


@click.command()
@click.argument("map_path")
@click.argument("photo_folder", type=Path)
@click.argument("truth", type=Path)
@click.option("--backbone", default="mobilenetv2_100")
@click.option("--checkpoint", default="")
@click.option("--mean", default=0.0)
@click.option("--std", default=0.0)
@click.option("--elsewhere", type=Path)
@click.option("--limit", default=0, help="photos, evenly taken; 0: all")
@click.option("--side-px", default=224)
@click.option("--rounds", default=1)
@click.option("--threads", default=2)
@click.option("--save", type=Path, help="a file for what was found, to look at it again")
@torch.inference_mode()
def main(map_path: str, photo_folder: Path, truth: Path, **options: Any) -> None:
    """Run and print; see the module."""
    torch.set_num_threads(options["threads"])
    forward = frozen(options["backbone"], options["checkpoint"], options["mean"], options["std"])
    paths = sorted(photo_folder.glob("*.jpg"))
    if options["limit"]:
        paths = paths[:: max(1, len(paths) // options["limit"])]
    others = options["elsewhere"].rglob("*") if options["elsewhere"] else []
    elsewhere = sorted(path for path in others if path.is_file())
    strangers = elsewhere[:: max(1, len(elsewhere) // len(paths))][: len(paths)]
    data = load(map_path, paths, strangers, options["side_px"], forward)
    result = search_all(data, options["rounds"])
    print("photos within 5, 10, 25, 50, 100 m in percent | median in m | found in percent")
    for number, found in enumerate(result.rounds):
        peaks, sure = found.peaks, found.confidence.numpy()
        middles = list(zip(peaks.east[:, 0].tolist(), peaks.north[:, 0].tolist(), strict=True))
        title = f"adapted, round {number}" if number else "frozen"
        line(title, errors(middles, data.ids, truth, data.geomap), sure, data.own)
        scales = np.bincount(peaks.scale[data.own, 0], minlength=len(data.scales))
        print(f"   lead {found.lead.mean():.3f}, by chance {found.chance:.3f}; photos by scale {scales}")
    places = fitted(data, result, forward)
    error = errors([place.middle for place in places], data.ids[: len(places)], truth, data.geomap)
    sure = np.array([place.confidence for place in places])
    line("fitted", error, sure, np.ones(len(places), bool))
    said, kept = np.array([place.error_m for place in places]), sure >= FOUND
    held = 100 * (error <= said)[kept].mean()
    print(f"error_m: median {np.median(said):.1f}; {held:.0f} % of the found lie within it")
    for i in error.argsort()[::-1][:6]:
        print(f"  {data.ids[i]}: {error[i]:.1f} m, error_m {said[i]:.1f}, confidence {sure[i]:.2f}")
    print("seconds per photo:", {part: round(took / len(data.own), 3) for part, took in seconds.items()})
    if options["save"]:
        torch.save((data.scales, result, places, error, data.own), options["save"])


if __name__ == "__main__":
    main()
