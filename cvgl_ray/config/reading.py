"""Reading the configuration: TOML and overrides `section.key=value`, on the defaults or another base."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cvgl_ray.config.faults import explain
from cvgl_ray.config.whole import Config
from cvgl_ray.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def load_config(
    path: str | Path | None = None, overrides: tuple[str, ...] = (), base: Config | None = None
) -> Config:
    """Read a TOML file (none: nothing but defaults) and apply `section.key=value` overrides, in TOML syntax.

    A value that is no TOML is taken as a string, so `dataset.root=/data` needs no quotes. The section [tune]
    of a sweep is left aside: what remains is the configuration that the sweep starts from.
    base: what the file and the overrides change instead of the defaults, such as a bundle's configuration.
    Raises InputError naming the key, the value and what is allowed.
    """
    tree = read_tree(path, overrides)
    tree.pop("tune", None)
    return validated(Config, tree if base is None else _merged(base.model_dump(mode="json"), tree))


def read_tree(path: str | Path | None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file with the overrides applied, not yet validated."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--config {path}: the file cannot be read ({error}); give a TOML file"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"--config {path}: the file is not valid TOML: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return tree


def validated(model: type[Model], tree: Any, prefix: tuple[str, ...] = ()) -> Model:
    """The model made of a tree; prefix: where the tree stands in the file, for the error's sentence."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, model, prefix)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise InputError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.lstrip().startswith(("[", "{")):  # a shell takes the quotes of --set a.b=["c"] away
            raise InputError(
                f"--set {override!r} holds a list or table that is no TOML: put words in double quotes and "
                """the whole in single ones, as in --set 'backbone.layers=[-2, "final"]'"""
            ) from error
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override!r} goes into {key!r}, which is a value and not a section")
    tree[keys[-1]] = value


def _merged(base: Any, changes: Any) -> Any:
    """The tree `base` with the values of `changes` in place of its own."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merged(base.get(key), value) for key, value in changes.items()}
