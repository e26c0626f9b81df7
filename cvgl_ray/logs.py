"""The package's log on standard error: the messages alone, or with level, time and origin on request.

The request is a variable of the environment, so that workers and actors inherit it.
"""

import logging
import os
import sys

VERBOSE = "CVGL_RAY_VERBOSE"


def is_verbose() -> bool:
    """Whether `--verbose` was given to the command that this process, or its driver, runs."""
    return os.environ.get(VERBOSE) == "1"


def set_up(verbose: bool | None = None) -> None:
    """Show the package's messages of INFO and above, and other packages' warnings.

    verbose: those of DEBUG too, all with level and time; None: as the environment says.
    """
    if verbose is not None:
        os.environ[VERBOSE] = "1" if verbose else "0"
    plain, full = "%(message)s", "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
    logging.basicConfig(format=full if is_verbose() else plain, stream=sys.stderr, force=is_verbose())
    logging.getLogger("cvgl_ray").setLevel(logging.DEBUG if is_verbose() else logging.INFO)
