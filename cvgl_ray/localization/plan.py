"""Which sizes of the ground and which headings of photos are searched, and how much work that is."""

from cvgl_ray.alignment.map_cells import CORE
from cvgl_ray.alignment.scales import Scale, plan_scales, resolutions
from cvgl_ray.config import Cells
from cvgl_ray.errors import InputError
from cvgl_ray.maps.geomap import GeoMap


def searched_scales(section: Cells, geomap: GeoMap) -> list[Scale]:
    """The sizes of ground that are searched. Raises InputError for a map too small or too coarse for any."""
    scales = plan_scales(geomap.metres_per_pixel, section.side_px, section.ground_m, section.ground_factor)
    if not scales:
        raise InputError(
            f"the map has {geomap.metres_per_pixel:.3g} m per pixel, too coarse for photos of at most"
            f" {section.ground_m[1]:g} m of ground: give a finer map, or a larger cells.ground_m"
        )
    bounds = geomap.bounds
    shorter = min(bounds.width_m, bounds.height_m)
    fitting = [scale for scale in scales if scale.side_m <= shorter]
    if not fitting:
        raise InputError(
            f"the map is {bounds.width_m:.0f} m x {bounds.height_m:.0f} m, smaller than a photo of"
            f" {scales[0].side_m:.0f} m: give a larger map, or photos of less ground and a smaller"
            " cells.ground_m"
        )
    return fitting


def searched_headings(section: Cells) -> list[float]:
    """The headings that photos are turned to, in degrees."""
    return [360.0 * step / section.headings for step in range(section.headings)]


def map_blocks(section: Cells, geomap: GeoMap, stride: int) -> int:
    """About how many blocks a map's cells are made of, at all resolutions. stride: px per cell."""
    sides = [CORE * stride * resolution for resolution in resolutions(searched_scales(section, geomap))]
    return round(sum(geomap.area_m2 / side**2 for side in sides))
