"""A data set and a configuration small enough for tests that need Ray, and what makes Ray quick."""

from pathlib import Path

import numpy as np
from PIL import Image

from cvgl_ray.config import Config, load_config

PLACES = 12
DRONE_IMAGES = 2
SMALL = (
    "backbone.name=test_efficientnet",
    "backbone.pretrained=false",
    "backbone.image_size=32",
    "backbone.crop_fraction=0",
    "pretransform.query.crops=[1.0]",
    "pretransform.query.orientations=1",
    "pretransform.reference.orientations=1",
    "features.batch_size=16",
    "adapter.kind=linear",
    "mstep.rounds=3",
    "mstep.steps_per_round=2",
    "mstep.batch_size=16",
)
# Of pictures that are laid on each other, such as `write_turned`'s.
ALIGNED = (
    "alignment.use=yes",
    "alignment.side=8",
    "alignment.headings=4",
    "alignment.widths=[1.0, 1.33, 1.8]",
    "alignment.candidates=6",
    "adapter.kind=attenuation",
    "mstep.rounds=2",
    "pretransform.query.crops=auto",
    "pretransform.query.orientations=auto",
    "pretransform.reference.orientations=auto",
    "run.agreement=false",
)
# Ray Train looks after its workers every 2 s by default, and the tests' time is short.
QUICK_RAY = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


def configured(root: Path, *more: str) -> Config:
    """The small configuration for a data set."""
    return load_config(None, (f"dataset.root={root}", *SMALL, *more))


def write_places(root: Path, names: list[str]) -> Path:
    """University-1652's layout, train and test alike: a random pattern a place, noisier from the drone."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        pattern = rng.integers(0, 200, (4, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        pictures = {"satellite": [pattern]}
        pictures["drone"] = [
            pattern + rng.integers(0, 50, pattern.shape, dtype=np.uint8) for _ in range(DRONE_IMAGES)
        ]
        for side in ("train/{}", "test/query_{}", "test/gallery_{}"):
            for view, images in pictures.items():
                folder = root / side.format(view) / name
                folder.mkdir(parents=True)
                for copy, image in enumerate(images):
                    Image.fromarray(image).save(folder / f"image-{copy}.png")
    return root


def write_turned(root: Path, places: int) -> Path:
    """Tiles, and pictures of a third more ground on each side, turned by a quarter clockwise."""
    for view in ("drone", "satellite"):
        (root / view).mkdir()
    lines = ["image_id,place_id"]
    for number in range(places):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        ground = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
        pixels = np.array(ground).astype(int)
        tile = pixels[24:168, 24:168]
        seen = np.rot90(pixels, -1) * 0.7 + 40 + rng.normal(0, 8, pixels.shape)
        for view, picture in (("satellite", tile), ("drone", seen)):
            name = f"{number + (50 if view == 'drone' else 0):03d}.png"
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / view / name)
            lines.append(f"{view}/{name},{number}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root
