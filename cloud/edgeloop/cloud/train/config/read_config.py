"""`train.toml` and what `--set` changes of it in, a `TrainConfig` out."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop import settings
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.train.config.keys import hints, names_path
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.errors import OptionsError


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """The training that a TOML file describes; relative paths in it are relative to its folder.

    Args:
        changes: `TABLE.KEY=VALUE`, each replaces what the file says; paths as the shell has them.

    Raises:
        DataError: The file cannot be read, or is no TOML.
        OptionsError: An unknown key (the nearest known one is named), a wrong value, or a contradiction.

    Example:
        >>> read_train_config(Path("train.toml"), ["pipeline.batch=64"]).pipeline.batch
        64
    """
    given = _tables(settings.read_toml(path), str(path))
    given = _anchored(TrainConfig, _batches_moved(given, f"{path}: data"), path.resolve().parent)
    for change in changes:
        _set(given, change)
    return settings.build(TrainConfig, _batches_moved(given, f"{path}: data"), str(path))


def _tables(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Each table as a dict of its own; `strategy = "auto"` is short for its first key."""
    kinds = {field.name.replace("_", "-"): hint for field, hint in hints(TrainConfig)}
    settings.checked(dict.fromkeys(kinds, Any), given, where)
    short = {name: value for name, value in given.items() if isinstance(value, str)}
    first = {name: dataclasses.fields(kinds[name.replace("_", "-")])[0].name for name in short}
    return {**given, **{name: {first[name]: value} for name, value in short.items()}}


def _batches_moved(tables: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keys of [pipeline] that stand in [data], where they read as well, at their place."""
    data = tables.get("data")
    if not isinstance(data, Mapping):
        return dict(tables)
    own, other = ({one.name for one in dataclasses.fields(kind)} for kind in (DataConfig, PipelineOptions))
    settings.checked({name.replace("_", "-"): Any for name in own | other}, data, where)
    moved = {key for key in data if key.replace("-", "_") in other - own}
    kept = {key: value for key, value in data.items() if key not in moved}
    pipeline = {**tables.get("pipeline", {}), **{key: data[key] for key in data if key in moved}}
    return {**tables, "data": kept, **({"pipeline": pipeline} if pipeline else {})}


def _anchored(kind: type, given: Mapping[str, Any], base: Path) -> dict[str, Any]:
    fields = {field.name: (field, hint) for field, hint in hints(kind)}
    found: dict[str, Any] = {}
    for key, value in given.items():
        field, hint = fields.get(key.replace("-", "_"), (None, None))
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = _anchored(typing.cast(type, hint), value, base)
        elif isinstance(value, str) and (hint is Path or (field is not None and names_path(field, value))):
            value = str(base / value)
        found[key] = value
    return found


def _set(given: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *tables, name = key.strip().replace("-", "_").split(".")
    if not equals or not tables or not all((*tables, name)):
        raise OptionsError(f"--set is {change!r}", advice="Write TABLE.KEY=VALUE, e.g. data.batch=64.")
    table = given
    for one in tables:
        table[one] = dict(table.get(one) or {})
        table = table[one]
    for old in [old for old in table if old.replace("-", "_") == name]:
        del table[old]
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # a text needs no quotes here
        table[name] = text
