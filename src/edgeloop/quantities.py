"""Numbers that a user gives: finite, in range, sizes in bytes and of tensors."""

from __future__ import annotations

import math

from edgeloop.errors import OptionsError


def above_zero(value: float, option: str) -> None:
    """See that a number is finite and above 0.

    Raises:
        OptionsError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise OptionsError(f"{option} is {value:g}", advice="It must be a number above 0.")


def at_least(value: int, least: int, option: str) -> None:
    """See that a whole number is not below `least`.

    Raises:
        OptionsError: It is.
    """
    if value < least:
        raise OptionsError(f"{option} is {value}", advice=f"It must be {least} or more.")


def byte_count(megabytes: float, option: str) -> int:
    """A size in units of 10^6 bytes as bytes, 1 or more.

    Raises:
        OptionsError: It is no finite number above 0.
    """
    above_zero(megabytes, option)
    above_zero(megabytes * 1e6, option)  # 1e308 MB is no number of bytes
    return math.ceil(megabytes * 1e6)


def numbers(given: str | None, option: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`; empty when the option was not given.

    Raises:
        OptionsError: Something is not a finite number.
    """
    if given is None:
        return ()
    try:
        values = tuple(float(word) for word in given.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(map(math.isfinite, values)):
        raise OptionsError(f"{option} is {given!r}", advice="Write one number, or several with commas between them.")
    return values


def pair(given: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers, as `0,255`; None when the option was not given. Raises as `numbers`."""
    values = numbers(given, option)
    if given is not None and len(values) != 2:
        raise OptionsError(
            f"{option} is {given!r}: {len(values)} of 2 numbers", advice="Write two numbers with a comma between them."
        )
    return (values[0], values[1]) if values else None


def input_shape(given: str) -> tuple[str, tuple[int | None, ...]]:
    """`image=1,?,?,3` as a name and its sizes, None for `?`.

    Raises:
        OptionsError: No name, or a size that is neither `?` nor a whole number above 0.
    """
    name, _, sizes = given.rpartition("=")
    words = [word.strip() for word in sizes.split(",")]
    if not name or not all(word == "?" or (word.isdecimal() and int(word)) for word in words):
        raise OptionsError(
            f"--shape is {given!r}",
            advice="Write NAME=SIZES with a size above 0 or ? for each dimension, e.g. image=1,?,?,3.",
        )
    return name, tuple(None if word == "?" else int(word) for word in words)
