"""Where two configurations differ, and what of a bundle's may be changed by whoever uses it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvgl_ray.config.reading import load_config
from cvgl_ray.config.run import Run
from cvgl_ray.config.whole import Config
from cvgl_ray.errors import InputError

_LEARNING = ("adapter", "estep", "mstep", "loss")
_PLACES = {"checkpoint", "pretrained"}  # where the weights lie; which they are, the features' recipe says


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """The first key of two trees whose value differs, with both values; empty where none does."""
    for key in {**old, **new}:
        was, value = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(value, dict):
            inner = first_difference(was, value, f"{prefix}{key}.")
            if inner:
                return inner
        elif was != value:
            return f"{prefix}{key} was {was!r}, now {value!r}"
    return ""


def load_on_bundle(
    trained: Config, bundle: Path, path: str | Path | None = None, overrides: tuple[str, ...] = ()
) -> Config:
    """A bundle's configuration with what a file and overrides change of it.

    They say where data and weights lie, what the machine has, how retrieval compares. Raises InputError
    naming the first key that they change of what made the bundle.
    """
    config = load_config(path, overrides, _elsewhere(trained))
    config = config.model_copy(update={"pretransform": config.pretransform.filled(trained.pretransform)})
    seeded = all(_has_random_weights(one) for one in (trained, config))
    difference = first_difference(_made_by(trained, seeded), _made_by(config, seeded))
    if difference:
        raise InputError(
            f"bundle {bundle} was made with another configuration ({difference}); leave that key as it "
            "was, or give a bundle that was trained with it"
        )
    return config


def _elsewhere(trained: Config) -> Config:
    """The configuration without the resources of the training's machine, and a cache that is not here."""
    cache = trained.features.cache if Path(trained.features.cache).is_dir() else ""
    features = trained.features.model_copy(update={"cache": cache, "actors": 0})
    return trained.model_copy(update={"features": features, "run": Run()})


def _has_random_weights(config: Config) -> bool:
    return not (config.backbone.pretrained or config.backbone.checkpoint)


def _made_by(config: Config, seeded: bool) -> dict[str, Any]:
    """What a bundle depends on; seeded: the seed of random weights too."""
    exclude: dict[str, Any] = {"backbone": _PLACES if seeded else _PLACES | {"seed"}}
    tree = config.model_dump(include={"backbone", "pretransform", *_LEARNING}, exclude=exclude)
    views = config.model_dump(
        include={
            "dataset": {"query_view", "reference_view"},
            "alignment": {"side", "bands", "headings", "widths"},
            "cells": {"layer"},
        }
    )
    source = "a table" if config.features.table else "images"
    return {**views, "features": {"of": source}, **tree}
