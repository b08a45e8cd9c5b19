"""Options from a TOML file, or from any mapping, to typed values and frozen dataclasses.

Serves `--config F.toml` of every verb, and whatever is described by a file of its own (a training, a pipeline). A key
is the name of an option or field, with `-` or `_`; a table is a nested dataclass. What a class refuses when it is built
(an impossible combination) stays its own business.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import tomllib
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgeloop.errors import DataError, OptionsError

Settings = TypeVar("Settings")
LISTED = 20  # names in one message
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes", Path: "a path"}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a file.

    Raises:
        DataError: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}", advice="Pass the path of a TOML file.") from e
    except ValueError as e:  # TOMLDecodeError and UnicodeDecodeError are such
        raise DataError(f"{path} is not valid TOML: {e}", advice="Write one `name = value` per line.") from e


def build(kind: type[Settings], given: Mapping[str, Any], where: str = "") -> Settings:
    """`kind`, a dataclass, from a mapping; what is not given keeps its default.

    Args:
        where: What the mapping is, e.g. the file's name, for messages.

    Raises:
        OptionsError: An unknown key, a value of another type, or a field without a default that is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values = checked({name.replace("_", "-"): hints[name] for name in fields}, given, where)
    missing = [
        key
        for name, field in fields.items()
        if (key := name.replace("_", "-")) not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise OptionsError(f"{_in(where)}{', '.join(missing)} is missing", advice="Add it.")
    return kind(**{name.replace("-", "_"): value for name, value in values.items()})


def checked(expected: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The given values as the types that `expected` names by key; keys come back as `expected` spells them.

    Raises:
        OptionsError: An unknown key, with the nearest known one, or a value of another type.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("_", "-")
        if name not in expected:
            raise OptionsError(f"{_in(where)}{key} is not known", advice=suggestion(name, expected))
        if name in values:
            raise OptionsError(f"{_in(where)}{name} is given twice, with - and with _", advice="Keep one.")
        values[name] = typed(expected[name], value, f"{_in(where)}{key}")
    return values


def typed(hint: Any, value: Any, name: str) -> Any:
    """`value`, as TOML or JSON has it, as the type `hint`: a choice by its value, a list as a tuple, a table as a
    dataclass.

    Raises:
        OptionsError: It is of another type.
    """
    hint = plain(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast(type, hint), value, name)
    if origin in (list, tuple, Sequence, frozenset) and isinstance(value, list):
        kinds = inner[:1] * len(value) if origin is not tuple or inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            made = [typed(kind, part, f"{name}[{i}]") for i, (kind, part) in enumerate(zip(kinds, value, strict=True))]
            return frozenset(made) if origin is frozenset else tuple(made)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: typed(inner[1], part, f"{name}.{key}") for key, part in value.items()}
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return member(hint, value, name)
        if hint is float and type(value) is int:
            return float(value)
        if hint is Path and isinstance(value, str):
            return Path(value)
        if type(value) is hint:
            return value
    raise OptionsError(f"{name} is {value!r}", advice=f"It must be {_expected(hint)}.")


def member(choice: type[enum.Enum], value: Any, name: str) -> Any:
    """The member of `choice` that has this value.

    Raises:
        OptionsError: None has; the nearest one and all of them are named.
    """
    known = {str(one.value): one for one in choice}
    if not isinstance(value, str) or value not in known:
        raise OptionsError(f"{name} {str(value)!r} is not known", advice=suggestion(str(value), known))
    return known[value]


def plain(hint: Any) -> Any:
    """A type without `Annotated` and without `None`: `Annotated[int | None, ...]` is `int`."""
    if typing.get_origin(hint) is typing.Annotated:
        return plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (left,) = [part for part in typing.get_args(hint) if part is not type(None)] or [Any]
        return plain(left)
    return hint


def choice_of(hint: Any) -> type[enum.Enum] | None:
    """The fixed choice of an option, also of a repeatable one; None when its values are free."""
    kind = plain(hint)
    if typing.get_origin(kind) in (list, tuple):
        kind = typing.get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, enum.Enum) else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean int8? Choose from float32, int8.` A long list is left out where one of it is near."""
    names: Collection[str] = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    everything = f"Choose from {', '.join(names)}."
    if not near:
        return everything
    return f"Did you mean {near[0]}?" + (f" {everything}" if len(names) <= LISTED else "")


def anchored(value: Any, base: Path) -> Any:
    """The same with its relative paths taken from the folder `base`; looks into dataclasses, tuples and mappings."""
    if isinstance(value, Path):
        return base / value
    if isinstance(value, tuple):
        return tuple(anchored(part, base) for part in value)
    if isinstance(value, Mapping):
        return {key: anchored(part, base) for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: anchored(getattr(value, name), base) for name in fields})
    return value


def _in(where: str) -> str:
    return f"{where}: " if where else ""


def _expected(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "a table"
    if hint in WORDS:
        return WORDS[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: {', '.join(map(_expected, map(plain, inner)))}"
    return f"a list, each {_expected(plain(inner[0]))}" if inner and origin not in (dict, Mapping) else "a table"
