"""The configuration explained by its own models: every key, its default, what is allowed, what it means."""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cvgl_ray.config.whole import STRIP_DEFAULTS, Config
from cvgl_ray.errors import InputError
from cvgl_ray.tuning.config import Tune

WIDTH = 110
_BOUNDS = {
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Gt: ("gt", "above"),
    annotated_types.Le: ("le", "at most"),
    annotated_types.Lt: ("lt", "below"),
}


@dataclass(frozen=True)
class Key:
    """One key: its name within its section, its default as TOML, range and meaning."""

    name: str
    default: str
    allowed: str
    meaning: str


def as_table(sections: Sequence[str] = ()) -> str:
    """All keys for people, a block per section; of the named sections alone where some are named."""
    blocks = []
    for section, model in _chosen(sections):
        lines = [f"[{section}]  {_first_line(model)}"]
        keys = list(_keys(model))
        names, defaults = (
            max(map(len, column)) for column in zip(*((k.name, _short(k)) for k in keys), strict=True)
        )
        for key in keys:
            head = f"  {key.name:{names}}  {_short(key):{defaults}}  "
            lines += textwrap.wrap(_said(key), WIDTH, initial_indent=head, subsequent_indent=" " * 6)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks + _strips(sections))


def as_toml(sections: Sequence[str] = ()) -> str:
    """A file to start from: all keys with their defaults, commented out: what is changed stands out."""
    blocks = ["# Every key with its default; take the # away from what you change."]
    for section, model in _chosen(sections):
        off = "#" if section.startswith("tune") else ""  # a sweep's section alone makes no sweep
        lines = [f"{off}[{section}]  # {_first_line(model)}"]
        for key in _keys(model):
            lines += textwrap.wrap(_said(key), WIDTH, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#{key.name} = {key.default}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks + [textwrap.indent(text, "# ") for text in _strips(sections)])


def _chosen(names: Sequence[str]) -> list[tuple[str, type[BaseModel]]]:
    found: dict[str, type[BaseModel]] = {**dict(_sections(Config)), "tune": Tune}
    for name in names:
        if name not in found and not any(section.startswith(f"{name}.") for section in found):
            near = get_close_matches(name, found, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"there is no section {name!r}{meant}; the sections are: {', '.join(found)}")
    return [
        (section, model)
        for section, model in found.items()
        if not names or any(section == name or section.startswith(f"{name}.") for name in names)
    ]


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Sections that hold keys, and sections in them, by dotted name."""
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if any(_is_value(below) for below in inner.model_fields.values()):
                yield f"{prefix}{name}", inner
            yield from _sections(inner, f"{prefix}{name}.")


def _keys(model: type[BaseModel]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if _is_value(field):
            default = field.get_default(call_default_factory=True)
            yield Key(name, json.dumps(default), _allowed(field), " ".join((field.description or "").split()))


def _is_value(field: FieldInfo) -> bool:
    return not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))


def _allowed(field: FieldInfo) -> str:
    """The range of a number, the choices of a word; "" where the meaning says it all."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(json.dumps(value) for value in get_args(field.annotation))
    found = []
    for bound in field.metadata:
        for kind, (attribute, words) in _BOUNDS.items():
            if isinstance(bound, kind):
                found.append(f"{words} {getattr(bound, attribute)}".removesuffix(".0"))
    return ", ".join(found)


def _said(key: Key) -> str:
    return f"{key.meaning} ({key.allowed})" if key.allowed else key.meaning


def _short(key: Key) -> str:
    """A default for people: a fraction in few digits."""
    return f"{float(key.default):.4g}" if re.fullmatch(r"0\.\d{5,}", key.default) else key.default


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _strips(sections: Sequence[str]) -> list[str]:
    """The defaults that strips have instead, in a paragraph, where it is of the named sections."""
    if sections and not set(STRIP_DEFAULTS) & {name.split(".")[0] for name in sections}:
        return []
    found = []

    def collect(tree: dict[str, Any], prefix: str = "") -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")
            else:
                found.append(f"{prefix}{key} = {json.dumps(value)}")

    collect(STRIP_DEFAULTS)
    text = 'Where a projection is "panorama" or "polar", the defaults are: ' + ", ".join(found)
    return [textwrap.fill(text, WIDTH - 2)]
