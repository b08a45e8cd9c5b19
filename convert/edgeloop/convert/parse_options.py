"""Words of a command line to values: choices, lists of numbers, files of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

from edgeloop.errors import DataError, OptionsError

Choice = TypeVar("Choice", bound=Enum)


def choices(kind: type[Choice], given: Sequence[str] | None, option: str) -> tuple[Choice, ...] | None:
    """`--to a --to b` and `--to a,b` alike; None when the option was not given.

    Raises:
        OptionsError: A word that is none of the choices.
    """
    if not given:
        return None
    known = {choice.value: choice for choice in kind}
    words = [word.strip() for text in given for word in text.split(",")]
    for word in words:
        if word not in known:
            raise OptionsError(f"{option} {word!r} is not known. Choose from {', '.join(known)}.")
    return tuple(dict.fromkeys(known[word] for word in words))


def choice(kind: type[Choice], given: str, option: str) -> Choice:
    """One word of `kind`. Raises as `choices`."""
    known = {choice.value: choice for choice in kind}
    if given not in known:
        raise OptionsError(f"{option} {given!r} is not known. Choose from {', '.join(known)}.")
    return known[given]


def numbers(given: str | None, option: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`; empty when the option was not given.

    Raises:
        OptionsError: Something that is no number.
    """
    if given is None:
        return ()
    try:
        return tuple(float(word) for word in given.split(","))
    except ValueError as e:
        raise OptionsError(f"{option} {given!r} is no list of numbers. Expected one, or several with commas.") from e


def pair(given: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers, as `0,255`; None when the option was not given. Raises as `numbers`."""
    values = numbers(given, option)
    if given is not None and len(values) != 2:
        raise OptionsError(f"{option} {given!r} holds {len(values)} numbers. Expected two, with a comma.")
    return (values[0], values[1]) if values else None


def size(given: str | None, option: str) -> tuple[int, int] | None:
    """Height and width in pixels, as `480,640`. Raises as `numbers`."""
    values = pair(given, option)
    if values is None:
        return None
    if any(value != int(value) for value in values):
        raise OptionsError(f"{option} {given!r} is no size. Expected whole pixels: height,width.")
    return int(values[0]), int(values[1])


def byte_count(given: float, unit: int, option: str) -> int:
    """A size in units of `unit` bytes as bytes.

    Raises:
        OptionsError: It is no finite number above 0.
    """
    if not (math.isfinite(given) and given > 0):
        raise OptionsError(f"{option} {given:g} is no size. Expected a number above 0.")
    return int(given * unit)


def label_file(path: Path | None) -> tuple[str, ...]:
    """Names, one a line, in the order of the classes; empty when there is no file.

    Raises:
        DataError: It cannot be read as UTF-8 text, or is empty.
    """
    if path is None:
        return ()
    try:
        labels = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} is no text file of labels ({e}). Expected one name a line.") from e
    if not labels:
        raise DataError(f"{path} holds no labels. Expected one name a line.")
    return labels
