"""Who localises photos on a map: this process, or a cluster. Ray is imported for a cluster alone.

To import it takes seconds and to start it memory, and one process uses all cores of a machine as well.
"""

import sys
from functools import partial

from cvgl_ray.distributed.address import LOCAL, cluster_address
from cvgl_ray.localization.run import Workers, work_here


def workers_at(address: str, gpu: bool) -> Workers:
    """Who works: a cluster that is joined, else this process, with all cores of its machine.

    Raises InputError for an address without a cluster, and where no process that works can ever start.
    """
    if not _connected() and cluster_address(address) == LOCAL:
        return work_here
    from cvgl_ray.distributed.map_work import check_map_room, map_work

    check_map_room(address, gpu)
    return partial(map_work, address)


def _connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
