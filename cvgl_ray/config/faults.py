"""What is wrong with a configuration, in one sentence: the key, what was found, what is allowed."""

import json
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> str:
    """The first fault; prefix: where the model stands in the file."""
    fault = error.errors()[0]
    location = fault["loc"]
    key = ".".join(str(part) for part in (*prefix, *location))
    if fault["type"] == "extra_forbidden":
        valid = _keys_at(model, location[:-1])
        meant = _meant(key, [".".join((*prefix, *leaf)) for leaf in _all_keys(model)])
        return f"unknown key {key!r} in the configuration{meant}; valid keys here are: {', '.join(valid)}"
    found = json.dumps(fault["input"], default=str)
    where = f"configuration key {key!r}" if key else "configuration"
    if fault["type"] == "model_type":
        return f"{where} is {found}: it is a section; its keys are: {', '.join(_keys_at(model, location))}"
    if fault["type"] == "value_error":
        return f"{where}: {fault['ctx']['error']}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    if fault["type"] == "literal_error":
        message += _meant(str(fault["input"]), fault["ctx"]["expected"].replace("'", " ").split())
    return f"{where} is {found}: {message.replace('tuple', 'list')}"  # TOML knows lists


def _meant(found: str, possible: list[str]) -> str:
    """What may have been meant, in brackets: this key of another section, or what differs by a slip."""
    leaf = found.rpartition(".")[2]
    near = [name for name in possible if "." in name and name.rpartition(".")[2] == leaf]
    near += get_close_matches(found, possible, n=1, cutoff=0.7)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _all_keys(section: type[BaseModel]) -> list[tuple[str, ...]]:
    """All keys of a section and of those in it, as paths."""
    found: list[tuple[str, ...]] = []
    for name, field in section.model_fields.items():
        inner: Any = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        found += [(name, *path) for path in _all_keys(inner)] if nested else [(name,)]
    return found


def _keys_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(section.model_fields)
