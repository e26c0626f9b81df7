"""The configuration of a sweep: a base configuration, and in [tune] which keys vary and how.

`[tune.space]` goes from a configuration key, or a whole section, to a distribution:
`"adapter.shrinkage" = {uniform = [0.1, 0.9]}`, `{loguniform = [0.01, 1]}`, `{choice = [64, 512]}`,
`{grid = ["csls", "cosine"]}`; of a section, `adapter = {choice = [{rank = 64}, {kind = "linear"}]}` chooses
between tables of its keys.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cvgl_ray.config import Config, Count, CountOrZero, Section, Seed, read_tree, validated

KINDS = ("uniform", "loguniform", "choice", "grid")
FEATURE_SECTIONS = ("backbone", "pretransform")  # another value there needs other features
LEARNING_SECTIONS = ("adapter", "estep", "mstep", "loss")
_EXAMPLE = '"adapter.shrinkage" = {uniform = [0.1, 0.9]}'


class Distribution(Section):
    """What a swept key may be: bounds of a draw, values to choose from, or values that are all crossed."""

    kind: Literal["uniform", "loguniform", "choice", "grid"]
    values: Annotated[tuple[Any, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _bounds_rise(self) -> "Distribution":
        if self.kind in ("uniform", "loguniform"):
            numbers = [v for v in self.values if isinstance(v, int | float) and math.isfinite(v)]
            lowest = 0.0 if self.kind == "loguniform" else -math.inf
            if len(self.values) != 2 or len(numbers) != 2 or not lowest < numbers[0] < numbers[1]:
                found, above = list(self.values), " above 0" if self.kind == "loguniform" else ""
                raise ValueError(f"{self.kind} is {found}: give two finite numbers{above}, the lower first")
        return self


def _flatten(tree: Any, prefix: str = "") -> Any:
    """Tables of TOML -> {key: {"kind", "values"}}, whether a key was written dotted, quoted or nested."""
    if not isinstance(tree, dict):
        raise ValueError(
            f"{prefix.strip('.') or 'space'!r} is {tree!r}: give a distribution, as in {_EXAMPLE}"
        )
    if not set(tree) & set(KINDS):
        return {k: v for name, inner in tree.items() for k, v in _flatten(inner, f"{prefix}{name}.").items()}
    [(kind, values), *others] = tree.items()
    if others or not prefix or not isinstance(values, list):
        raise ValueError(
            f"{prefix.strip('.')!r} is {tree!r}: give one of {', '.join(KINDS)} with a list, as in {_EXAMPLE}"
        )
    return {prefix[:-1]: {"kind": kind, "values": values}}


class Tune(Section):
    """How a sweep is run; all of it is read from the section [tune]."""

    trials: Count = 24
    """candidates drawn; equal ones are tried once"""
    concurrency: CountOrZero = 0
    """trials at a time; 0: as many as the cluster has room for"""
    scheduler: Literal["asha", "none"] = "asha"
    """asha stops trials whose score lags behind; only in sweeps with run.workers = 1"""
    grace_rounds: Count = 1
    """asha: no trial is stopped before"""
    reduction: float = Field(default=3.0, gt=1.0)
    """asha: of so many trials one goes on to so many times the rounds"""
    seed: Seed = 0
    """of the draws"""
    space: Annotated[dict[str, Distribution], BeforeValidator(_flatten)] = Field(default_factory=dict)
    """what varies, by key or section: {choice = […]}, {grid = […]}, {uniform = […]} or {loguniform = […]}"""

    @model_validator(mode="after")
    def _space_fits(self) -> "Tune":
        if not self.space:
            raise ValueError(f"space is empty; name at least one key in [tune.space], as in {_EXAMPLE}")
        for key, distribution in self.space.items():
            section = key.split(".")[0]
            if section not in FEATURE_SECTIONS + LEARNING_SECTIONS and key != "run.seed":
                raise ValueError(
                    f"space has {key!r}, but only run.seed and keys of "
                    f"{', '.join(FEATURE_SECTIONS + LEARNING_SECTIONS)} can be swept"
                )
            if section in FEATURE_SECTIONS and distribution.kind in ("uniform", "loguniform"):
                raise ValueError(
                    f"space draws {key!r} from {distribution.kind}, and every value would need an extraction "
                    "of its own; give a choice or a grid"
                )
        crossed = math.prod(len(d.values) for d in self.space.values() if d.kind == "grid")
        if crossed > self.trials:
            raise ValueError(
                f"the grids have {crossed} combinations; trials must be at least that, found {self.trials}"
            )
        return self


@dataclass(frozen=True)
class Sweep:
    """A base configuration and how it is varied."""

    base: Config
    tune: Tune


def load_sweep(path: str | Path | None, overrides: tuple[str, ...] = ()) -> Sweep:
    """Read a sweep as `load_config` reads a configuration; `--set tune.trials=8` works as well.

    Raises InputError as that does, and for a space that cannot be swept.
    """
    tree = read_tree(path, overrides)
    tune = validated(Tune, tree.pop("tune", {}), ("tune",))
    return Sweep(validated(Config, tree), tune)
