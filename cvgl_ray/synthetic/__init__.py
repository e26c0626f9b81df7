"""A procedural world: places in University-1652's layout, or a map and a drone's flight over it."""
