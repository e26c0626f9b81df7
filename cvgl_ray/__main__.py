"""`python -m cvgl_ray`."""

from cvgl_ray.cli import main

main()
