"""How do frozen dataclasses come from plain values, and go back to them? Unknown keys are refused."""

import dataclasses
import difflib
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A key or a value that makes no sense, and what to write instead."""


def build(kind: type, given: Mapping[str, Any], where: str) -> Any:
    """A dataclass from plain values; `where` is its place in the file, for errors."""
    types = get_type_hints(kind)
    made = {}
    for key, value in given.items():
        name = f"{where}{key}"
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.0)
            raise ConfigError(f"{name!r} is no key; the nearest is {where}{near[0]}")
        made[key] = value_of(types[key], value, name)
    missing = [f.name for f in dataclasses.fields(kind) if _needed(f) and f.name not in made]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    return kind(**made)


def as_plain(config: Any) -> dict[str, Any]:
    """The config as plain JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def value_of(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a section, not {value!r}")
        return build(kind, value, f"{name}.")
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} is a list, not {value!r}")
        return tuple(value_of(get_args(kind)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a table, such as {{ every = 40 }}, not {value!r}")
        return dict(value)
    wanted = [k for k in (get_args(kind) or (kind,)) if k is not type(None)]
    if float in wanted and type(value) is int:
        return float(value)
    if not any(type(value) is k for k in wanted):
        raise ConfigError(f"{name} = {value!r} is no {' or '.join(k.__name__ for k in wanted)}")
    return value


def put(given: dict[str, Any], key: str, value: str) -> None:
    *sections, last = key.split(".")
    at = given
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--{key}: {section} is no section")
    try:
        at[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        at[last] = value


def as_toml(config: Any, explained: bool = False) -> str:
    """A config in full; or with what every key means, and with the keys that have no value."""
    plain = as_plain(config)
    lines = _section(type(config), {key: x for key, x in plain.items() if not isinstance(x, dict)}, explained)
    for name, values in plain.items():
        if isinstance(values, dict):
            lines += ["", f"[{name}]", *_section(type(getattr(config, name)), values, explained)]
    return "\n".join(lines) + "\n"


def _section(kind: type, values: Mapping[str, Any], explained: bool) -> list[str]:
    means, lines = meanings(kind) if explained else {}, []
    for key, value in values.items():
        lines += textwrap.wrap(means.get(key, ""), 120, initial_indent="# ", subsequent_indent="#   ")
        if value is not None:
            lines.append(f"{key} = {toml(value)}")
        elif explained:
            lines.append(f"# {key} =")
    return lines


def meanings(kind: type) -> dict[str, str]:
    """What the docstring says of each field, under "Args:"; of several that share a line, to the first."""
    _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    items = re.split(r"^  (?=\w)", listed, flags=re.MULTILINE)[1:]
    names_and_texts = (item.partition(": ") for item in items)
    return {names.split(",")[0]: " ".join(text.split()) for names, _, text in names_and_texts}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)  # inf is no JSON
