"""The whole job on a world that is rendered on the spot: no download, a few minutes on two cores."""

import logging
import os
from pathlib import Path
from typing import Any

from cvgl_ray.config import load_config
from cvgl_ray.stages import train_stage
from cvgl_ray.synthetic import write_world

log = logging.getLogger(__name__)

# A pretrained backbone would need a download. Among the untrained timm networks tried on other worlds, the
# early stages of a VGG keep most of what an image shows (experiments/LOG.md); rings need trained features.
SETTINGS = (
    "backbone.name=vgg11",
    "backbone.pretrained=false",
    "backbone.image_size=64",
    "backbone.crop_fraction=1.0",
    "backbone.layers=[0, 1, 2, 3]",
    "backbone.pooling=max",
    "backbone.rings=[]",
    "pretransform.query.crops=[1.0]",
    "pretransform.query.orientations=4",
    "pretransform.reference.orientations=4",
)


def quickstart(output: Path, seed: int = 0, address: str = "") -> dict[str, Any]:
    """Render `output`/world, train on its places, evaluate on unseen ones; returns metrics.json's tree."""
    world = output / "world"
    log.info("rendering 80 places to train on and 40 unseen ones to test on, 3 drone images each")
    processes = min(4, os.cpu_count() or 1)
    write_world(world, places=80, test_places=40, views=3, image_size=128, seed=seed, processes=processes)
    log.info("backbone: a vgg11 with random weights (seed 0), so that nothing needs to be downloaded")
    return train_stage(load_config(None, (f"dataset.root={world}", *SETTINGS)), output, address)
