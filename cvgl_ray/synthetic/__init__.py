"""A procedural world, rendered from above and obliquely, written in University-1652's layout."""

from cvgl_ray.synthetic.flight import render_place
from cvgl_ray.synthetic.writer import write_world

__all__ = ["render_place", "write_world"]
