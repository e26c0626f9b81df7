"""From a sweep's configuration to the configurations that it tries."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvgl_ray.config import Config, validated
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.config import FEATURE_SECTIONS, Sweep, Tune


@dataclass(frozen=True)
class Candidate:
    """One configuration of a sweep; values: what was drawn, by key of the space."""

    number: int
    values: dict[str, Any]
    config: Config

    @property
    def name(self) -> str:
        """What its trial is called wherever it leaves something."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """What a candidate's trial is called wherever it leaves something."""
    return f"trial-{number:03d}"


def candidates(sweep: Sweep) -> list[Candidate]:
    """The sweep's candidates, all different, each a valid configuration.

    The n-th draw depends on the seed and n alone, so more trials extend a sweep and change none of it.
    Raises InputError where one is impossible.
    """
    if not sweep.base.run.agreement:
        raise InputError(
            "run.agreement is false, but a sweep chooses by the score that it gives; leave it true"
        )
    found: dict[str, Candidate] = {}
    for number in range(sweep.tune.trials):
        values = dict(_draw(sweep.tune, number))
        config = vary(sweep.base, values)
        if config.features.table and feature_key(config) != feature_key(sweep.base):
            raise InputError(
                "features.table replaces the extraction, so backbone and pretransform cannot be swept"
            )
        found.setdefault(config.model_dump_json(), Candidate(number, values, config))
    return list(found.values())


def vary(base: Config, values: dict[str, Any]) -> Config:
    """The base with some keys replaced; a table replaces the keys that it names of its section."""
    tree = base.model_dump()
    for key in sorted(values, key=lambda key: key.count(".")):  # a section before its keys
        changes = values[key]
        for part in reversed(key.split(".")):
            changes = {part: changes}
        _merge(tree, changes)
    try:
        return validated(Config, tree)
    except InputError as error:
        raise InputError(f"tune.space has an impossible candidate, {json.dumps(values)}: {error}") from error


def feature_key(config: Config) -> str:
    """Equal for configurations that share their features."""
    return json.dumps(config.model_dump(mode="json", include=set(FEATURE_SECTIONS)), sort_keys=True)


def swept_values(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Of each candidate the JSON values of all keys that the sweep varies, sections taken apart."""
    keys = dict.fromkeys(key for candidate in candidates for key, _ in leaves(candidate.values))
    rows = []
    for candidate in candidates:
        tree = candidate.config.model_dump(mode="json")
        row = {}
        for key in keys:
            value: Any = tree
            for part in key.split("."):
                value = value[part]
            row[key] = value
        rows.append(row)
    return rows


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of all that tables within tables hold."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _draw(tune: Tune, number: int) -> Iterator[tuple[str, Any]]:
    """Key and value of the n-th candidate: grids are gone through in turn, the rest is drawn."""
    rng = np.random.default_rng((tune.seed, number))
    for key, distribution in tune.space.items():
        values = distribution.values
        if distribution.kind == "grid":
            number, position = divmod(number, len(values))
            yield key, values[position]
        elif distribution.kind == "choice":
            yield key, values[int(rng.integers(len(values)))]
        else:
            log = distribution.kind == "loguniform"
            low, high = np.log(values) if log else values
            drawn = float(rng.uniform(low, high))
            drawn = min(max(math.exp(drawn), values[0]), values[1]) if log else drawn
            yield key, round(drawn) if _is_whole(key) else drawn


def _is_whole(key: str) -> bool:
    """Whether the configuration keeps an integer under the key; an unknown key is left to its validation."""
    section: Any = Config
    for part in key.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return False
        section = field.annotation
    return section is int
