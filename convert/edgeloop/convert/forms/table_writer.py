"""Nested dicts out as a flatbuffer, by the small schema that `edgeloop.files.flatbuffer_table` reads with.

Source: https://flatbuffers.dev/internals/. What a table points to is written before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeloop.extras import need
from edgeloop.files.flatbuffer_table import TAG, Schema

NUMBERS = {"u8": "Uint8", "i8": "Int8", "u32": "Uint32"}


def write_table(schema: Schema, root: str, values: Mapping[str, Any], identifier: bytes) -> bytes:
    """A flatbuffer whose root is the table `root`. None, "", an empty vector and a number 0 leave their field out."""
    builder = need("flatbuffers", extra="edge").Builder(1024)
    builder.Finish(_table(builder, schema, root, values), identifier)
    return bytes(builder.Output())


def _table(builder: Any, schema: Schema, name: str, values: Mapping[str, Any]) -> int:
    placed = []
    for slot, (field, kind) in enumerate(schema[name]):
        value = values.get(field)
        if value is None or value in ("", (), []):
            continue
        if "|" in kind:
            kind = kind.split("|")[values[field + TAG] - 1]
        placed.append((slot, NUMBERS.get(kind), value if kind in NUMBERS else _pointed(builder, schema, kind, value)))
    builder.StartObject(len(schema[name]))
    for slot, number, value in placed:
        write = getattr(builder, f"Prepend{number}Slot" if number else "PrependUOffsetTRelativeSlot")
        write(slot, value, 0)
    return int(builder.EndObject())


def _pointed(builder: Any, schema: Schema, kind: str, value: Any) -> int:
    if kind == "text":
        return int(builder.CreateString(value))
    if not kind.startswith("["):
        return _table(builder, schema, kind, value)
    items = value if kind == "[f32]" else [_table(builder, schema, kind[1:-1], item) for item in value]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        (builder.PrependFloat32 if kind == "[f32]" else builder.PrependUOffsetTRelative)(item)
    return int(builder.EndVector())
