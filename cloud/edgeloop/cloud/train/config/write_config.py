"""A config as TOML that reads as the same config."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.config.keys import names_path

BARE_KEY = re.compile("[A-Za-z0-9_-]+")  # https://toml.io/en/v1.0.0#keys


def to_toml(config: Any) -> str:
    """A TOML file that `read_config` reads as the same config from any folder: paths in it are absolute. Keys that are
    None are left out."""
    return "\n".join(_lines(config, ())).strip() + "\n"


def _lines(config: Any, path: tuple[str, ...]) -> list[str]:
    values, tables = [], []
    for key, value in _pairs(config):
        if (isinstance(value, Mapping) and (value or not path[1:])) or dataclasses.is_dataclass(value):
            tables.append((key, value))
        elif value is not None:
            values.append(f"{key} = {_toml(value)}")
    lines = ["", f"[{'.'.join(path)}]", *values] if values else []
    return lines + [line for key, value in tables for line in _lines(value, (*path, key))]


def _pairs(config: Any) -> list[tuple[str, Any]]:
    """Keys as TOML has them, and values. The keys of a mapping are the user's own, and stay as they are."""
    if isinstance(config, Mapping):
        return [(name if BARE_KEY.fullmatch(name) else quoted(name), value) for name, value in config.items()]
    found = []
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if isinstance(value, str) and names_path(one, value):
            value = Path(value)
        found.append((one.name.replace("_", "-"), value))
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list, frozenset)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):  # in a list, or in another one: an inline table
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in _pairs(value)) + "}"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Path):
        value = value.absolute()
    return quoted(str(value.value if isinstance(value, enum.Enum) else value))


def quoted(text: str) -> str:
    """A text as TOML's basic string."""
    return '"' + "".join(f"\\{c}" if c in '\\"' else c if c.isprintable() else f"\\u{ord(c):04X}" for c in text) + '"'
