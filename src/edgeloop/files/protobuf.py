"""Protobuf bytes as plain nested values, without a schema and without running anything.

Enough to look into a SavedModel or an ONNX file before any loader sees it.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, "int | memoryview"]


def fields(message: memoryview) -> Iterator[Field]:
    """(number, value) of every field in order: an int for varints and fixed sizes, a memoryview for the rest.

    Raises:
        ValueError: The bytes end early or use a wire type that no message has.
    """
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(message, at)
            yield number, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, int.from_bytes(_take(message, at, size), "little")
            at += size
        elif wire == 2:
            size, at = varint(message, at)
            yield number, _take(message, at, size)
            at += size
        else:
            raise ValueError(f"wire type {wire} at byte {at}")


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where the next field begins.

    Raises:
        ValueError: It ends early or is longer than 10 bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("the message ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number longer than 10 bytes at byte {at}")


def messages(message: memoryview, number: int) -> list[memoryview]:
    """The length-delimited fields of that number."""
    return [value for n, value in fields(message) if n == number and isinstance(value, memoryview)]


def text(message: memoryview, number: int) -> str:
    """The last string field of that number, or ""."""
    found = messages(message, number)
    return bytes(found[-1]).decode("utf-8", "replace") if found else ""


def whole(message: memoryview, number: int, default: int = 0) -> int:
    """The last varint field of that number as a signed 64-bit integer, or `default`."""
    found = [value for n, value in fields(message) if n == number and isinstance(value, int)]
    value = found[-1] if found else default
    return value - (1 << 64) if value >= 1 << 63 else value


def _take(message: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(message):
        raise ValueError(f"a field of {size} bytes at byte {at} of {len(message)}")
    return message[at : at + size]
