"""Feature tables to train on, and what a training on them comes to without Ray."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl_ray.config import Config
from cvgl_ray.distributed.train import train
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.fit import fit
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import Round
from cvgl_ray.features.canonical import canonical_order
from cvgl_ray.features.table import FeatureTable
from cvgl_ray.storage.checkpoints import last_state
from cvgl_ray.storage.run_folder import RunFolder

Tables = tuple[FeatureTable, FeatureTable]


def two_views(places: int = 120, images: int = 2, dimension: int = 48) -> Tables:
    """Several images a place in the first view and one in the second: its vector, the view's and noise."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((places, dimension), dtype=np.float32)
    tables = []
    for name, count in (("q", images), ("r", 1)):
        seen = np.repeat(truth, count, axis=0) + rng.standard_normal(dimension, dtype=np.float32)
        seen += rng.standard_normal(seen.shape, dtype=np.float32)
        tables.append(FeatureTable([f"{name}/{row}" for row in range(len(seen))], seen.astype(np.float16)))
    return tables[0], tables[1]


def on_ray(tables: Tables, config: Config, output: Path) -> dict[str, Any]:
    """Train on Ray; the state of the learner that comes out, with the round to keep."""
    train(*tables, config, {}, RunFolder(output, str(output)))
    state = last_state(output / "train")
    assert state is not None
    learner = build_learner(config.learning, tables[0].dimension)
    learner.load_state_dict(state)
    learner.return_to_best()
    return learner.state_dict()


def undisturbed(tables: Tables, config: Config) -> tuple[Learner, list[Round]]:
    """All rounds in this very process."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.run.workers))
    try:
        query, reference = (table.rows(canonical_order(table)) for table in tables)
        return fit(query, reference, config.learning)
    finally:
        torch.set_num_threads(before)


def assert_same(one: Any, other: Any, path: str = "state") -> None:
    """Two trees of tensors and numbers agree to the last bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path
