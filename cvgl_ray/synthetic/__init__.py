"""A procedural world: places in University-1652's layout, or a map and a drone's flight over it."""

from cvgl_ray.synthetic.flight import render_place
from cvgl_ray.synthetic.street_views import write_streets
from cvgl_ray.synthetic.survey import write_flight
from cvgl_ray.synthetic.writer import write_world

__all__ = ["render_place", "write_flight", "write_streets", "write_world"]
