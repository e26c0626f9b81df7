"""Reading the configuration: TOML, overrides `section.key=value`, and each fault named in one sentence."""

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cvgl_ray.config.whole import Config
from cvgl_ray.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path | None, overrides: tuple[str, ...] = ()) -> Config:
    """Read a TOML file (none: the defaults) and apply `section.key=value` overrides, values in TOML syntax.

    A value that is no TOML is taken as a string, so `dataset.root=/data` needs no quotes. The section [tune]
    of a sweep is left aside: what remains is the configuration that the sweep starts from.
    Raises InputError naming the key, the value and what is allowed.
    """
    tree = read_tree(path, overrides)
    tree.pop("tune", None)
    return validated(Config, tree)


def read_tree(path: str | Path | None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file with the overrides applied, not yet validated."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"configuration {path} cannot be read ({error}); give a TOML file") from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"configuration {path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return tree


def validated(model: type[Model], tree: Any, prefix: tuple[str, ...] = ()) -> Model:
    """The model made of a tree; prefix: where the tree stands in the file, for the error's sentence."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, model, prefix)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise InputError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override!r} goes into {key!r}, which is a value and not a section")
    tree[keys[-1]] = value


def _explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> str:
    """The first fault, in one sentence: key, value found, what is allowed."""
    fault = error.errors()[0]
    location = fault["loc"]
    key = ".".join(str(part) for part in (*prefix, *location))
    if fault["type"] == "extra_forbidden":
        valid = ", ".join(_keys_at(model, location[:-1]))
        return f"unknown key {key!r} in the configuration; valid keys here are: {valid}"
    found = json.dumps(fault["input"], default=str)
    where = f"configuration key {key!r}" if key else "configuration"
    if fault["type"] == "model_type":
        return f"{where} is {found}: it is a section; its keys are: {', '.join(_keys_at(model, location))}"
    if fault["type"] == "value_error":
        return f"{where}: {fault['ctx']['error']}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where} is {found}: {message.replace('tuple', 'list')}"  # TOML knows lists


def _keys_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(section.model_fields)
