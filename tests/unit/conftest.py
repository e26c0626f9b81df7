"""One thread per process, no search for garbage while modules are imported, the command line in here."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices this small only wait for more of them
gc.disable()
atexit.register(gc.unfreeze)  # some packages take for leaks what is still frozen when they end


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True  # else pytest listens to each of torch's anew, thrice per test


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process: arguments -> (exit code, standard output, standard error)."""
    from cvgl_ray import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cvgl-ray", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def stages(monkeypatch) -> SimpleNamespace:
    """Stand-ins for the stages behind the commands."""
    module = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "cvgl_ray.stages", module)
    return module
