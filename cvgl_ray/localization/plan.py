"""Which sizes of the ground and which headings of photos are searched, and how finely."""

from cvgl_ray.alignment.scales import Scale, plan_scales, resolutions
from cvgl_ray.config import Cells
from cvgl_ray.errors import InputError
from cvgl_ray.maps.geomap import GeoMap

LARGE_PX = 1.5e9  # of a map's pictures at all resolutions: ten minutes of two cores for a small network
SHARED = 2  # scales that share a resolution of a large map: fewer of its cells, more of the photos'


def searched_scales(section: Cells, geomap: GeoMap) -> list[Scale]:
    """The sizes of ground that are searched, coarsely on a large map.

    Raises InputError for a map too small or too coarse for any.
    """
    native, ground, factor = geomap.metres_per_pixel, section.ground_m, section.ground_factor
    if is_large(section, geomap):
        scales = plan_scales(native, section.coarse_px, ground, factor, SHARED)
    else:
        scales = plan_scales(native, section.side_px, ground, factor)
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


def is_large(section: Cells, geomap: GeoMap) -> bool:
    """Whether a map is searched coarsely, and looked at finely only where photos may lie."""
    scales = plan_scales(geomap.metres_per_pixel, section.side_px, section.ground_m, section.ground_factor)
    pixels = sum(geomap.area_m2 / resolution**2 for resolution in resolutions(scales))
    return pixels > LARGE_PX and section.coarse_px < section.side_px


def searched_headings(section: Cells) -> list[float]:
    """The headings that photos are turned to, in degrees."""
    return [360.0 * step / section.headings for step in range(section.headings)]
