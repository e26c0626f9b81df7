"""Who localises photos on a map: this process, or a cluster. Ray is imported for a cluster alone.

To import it takes seconds, and most maps and flights are done by one process within minutes.
"""

import sys

from cvgl_ray.distributed.address import LOCAL, cluster_address
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.localization.run import Workers, work_here
from cvgl_ray.localization.work import Work
from cvgl_ray.maps.geomap import GeoMap

MANY_PIECES = 5_000  # photos and blocks of the map: what takes one process ten minutes and more


def workers_at(address: str, gpu: bool) -> Workers:
    """Who works: a cluster that is joined; for a localisation of MANY_PIECES one started here; this process.

    Raises InputError for an address without a cluster, and where no process that works can ever start.
    """
    joined = _connected() or cluster_address(address) != LOCAL
    if joined:
        from cvgl_ray.distributed.map_work import check_map_room

        check_map_room(address, gpu)

    def choose(model: CellModel, geomap: GeoMap, pieces: int, gpu: bool) -> Work:
        if not joined and pieces < MANY_PIECES:
            return work_here(model, geomap, pieces, gpu)
        from cvgl_ray.distributed.map_work import map_work

        return map_work(model, geomap, gpu, address)

    return choose


def _connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
