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
