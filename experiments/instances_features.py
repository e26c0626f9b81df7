"""Features of each image's variants, kept on disk: heading, crops, colours and scales before the backbone."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Config, Pretransform
from cvgl_ray.features import pretransform
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import decode
from cvgl_ray.features.recipe import build_backbone, recipe
from cvgl_ray.features.store import fingerprint
from cvgl_ray.features.views import unit_rows
from cvgl_ray.storage.files import file_digest, write_atomically
from cvgl_ray.storage.filesystem import read_bytes

Shot = tuple[float, int, str]  # central crop, quarter turns, "photometric" or ""
CROPS, JITTER = (0.85, 0.7, 0.55), 0.93


@dataclass(frozen=True)
class View:
    """Distinct images: by kind their k variants [k, N, D], "" the product's; train, test, places: [N]."""

    kinds: dict[str, np.ndarray]
    train: np.ndarray
    test: np.ndarray
    places: np.ndarray


def kinds_of(section: Pretransform, crops: tuple[float, ...]) -> dict[str, list[list[Shot]]]:
    """By kind the variants of an image, each the mean of some shots; few orientations are understood."""
    turns = range(section.orientations)
    return {
        "": [[(crop, turn, "") for crop in section.crops for turn in turns]],
        "headings": [[(crop, turn, "") for crop in section.crops] for turn in (0, 1)],
        "crops": [[(crop, turn, "") for turn in turns] for crop in sorted({*section.crops, *crops})],
        "photometric": [[(crop, 0, change) for crop in section.crops] for change in ("", "photometric")],
        "scale": [[(crop * jitter, 0, "") for crop in section.crops] for jitter in (1.0, JITTER)],
    }


def load_view(
    config: Config, catalog: Catalog, places: np.ndarray, name: str, section: Pretransform, output: Path
) -> View:
    """A view's distinct images (a test image may be a training image's copy) and their variants' features."""
    images = catalog.select(view=name)
    contents = [read_bytes(uri) for uri in images.uris]
    digests = np.array([file_digest(content) for content in contents])
    names, first = np.unique(digests, return_index=True)
    training = np.array(images.rows["split"].to_pylist()) == "train"
    pictures = [decode(contents[row]) for row in first]
    backbone = build_backbone(config.backbone)
    made_of = {**recipe(backbone, config.backbone, Pretransform()), "images": names.tolist()}

    @cache
    def features(shot: Shot) -> np.ndarray:
        path = output / f"{name}-{fingerprint({**made_of, 'shot': shot})}.npz"
        if not path.exists():
            write_atomically(path, partial(_save, unit_rows(extract(backbone, pictures, shot))))
        rows: np.ndarray = np.load(path)["rows"].astype(np.float32)
        return rows

    crops = CROPS if name == config.dataset.query_view else ()
    kinds = {
        kind: np.stack([unit_rows(sum(map(features, variant), np.zeros(1))) for variant in variants])
        for kind, variants in kinds_of(section, crops).items()
    }
    train, test = np.isin(names, digests[training]), np.isin(names, digests[~training])
    return View(kinds, train, test, places[first])


def _save(rows: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, rows=rows.astype(np.float16))


def extract(backbone: FrozenBackbone, pictures: list[Image.Image], shot: Shot) -> np.ndarray:
    """Features [N, D] of one shot of each picture."""
    crop, turn, change = shot
    shown = pretransform.Pretransform(crops=(crop,))
    batches = []
    for start in range(0, len(pictures), 32):
        chosen = pictures[start : start + 32]
        if change:
            chosen = [recoloured(picture, start + number) for number, picture in enumerate(chosen)]
        inputs = np.stack([backbone.prepare(picture, shown) for picture in chosen])
        batches.append(backbone.embed(np.rot90(inputs, turn, axes=(-2, -1)), shown))
    return np.concatenate(batches)


def recoloured(picture: Image.Image, seed: int) -> Image.Image:
    """Brightness, contrast and saturation times random factors between 0.8 and 1.2."""
    factors = np.random.default_rng(seed).uniform(0.8, 1.2, 3)
    changes = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    for change, factor in zip(changes, factors, strict=True):
        picture = change(picture).enhance(float(factor))
    return picture
