"""The configuration of a run: frozen models, read from TOML, overridden by `section.key=value`.

Every key says its meaning, unit and range; an impossible combination is refused next to its keys. The
defaults are the recommended values: a data set's root and a backbone's name are all that a run needs.
"""

from cvgl_ray.config.alignment import Alignment
from cvgl_ray.config.backbone import Backbone, Pretransform, Pretransforms
from cvgl_ray.config.data import Dataset, Features
from cvgl_ray.config.learning import Adapter, EStep, Learning, Loss, MStep
from cvgl_ray.config.localization import CellLayer, Cells, Prior
from cvgl_ray.config.reading import load_config, read_tree, validated
from cvgl_ray.config.run import Retrieval, Run
from cvgl_ray.config.section import Count, CountOrZero, Fraction, NotNegative, Positive, Section, Seed
from cvgl_ray.config.whole import Config

__all__ = [
    "Adapter",
    "Alignment",
    "Backbone",
    "CellLayer",
    "Cells",
    "Config",
    "Count",
    "CountOrZero",
    "Dataset",
    "EStep",
    "Features",
    "Fraction",
    "Learning",
    "Loss",
    "MStep",
    "NotNegative",
    "Positive",
    "Pretransform",
    "Pretransforms",
    "Prior",
    "Retrieval",
    "Run",
    "Section",
    "Seed",
    "load_config",
    "read_tree",
    "validated",
]
