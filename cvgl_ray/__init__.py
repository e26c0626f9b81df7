"""Cross-view geo-localization without ground truth, on Ray (method: arXiv 2403.12702).

The Python API, none of which needs Ray. What a name stands for is imported when it is first used, so that
`import cvgl_ray` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvgl_ray.config import Config, load_config
    from cvgl_ray.errors import InputError
    from cvgl_ray.features.extraction import extract
    from cvgl_ray.localization.run import localize
    from cvgl_ray.model import Model, evaluate, fit, load

__version__ = "0.1.0"

__all__ = ["Config", "InputError", "Model", "evaluate", "extract", "fit", "load", "load_config", "localize"]

_HOMES = {
    "Config": "config",
    "InputError": "errors",
    "Model": "model",
    "evaluate": "model",
    "extract": "features.extraction",
    "fit": "model",
    "load": "model",
    "load_config": "config",
    "localize": "localization.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
