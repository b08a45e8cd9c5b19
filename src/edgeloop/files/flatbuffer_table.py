"""Flatbuffer bytes as plain nested dicts by a small schema, whatever the bytes say: the standard library alone.

flatbuffers' own Python reader follows every offset it finds, and negative ones from the end; one table may also stand
in a vector a million times. Here every position is checked, and the whole reading has a budget.

Source: https://flatbuffers.dev/internals/ (tables, vtables, vectors)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Sequence[tuple[str, str]]]  # table: (field, kind) in the order of their ids, which are slots

BUDGET_BYTES = 1 << 20
TABLE_BYTES = 64  # what one table costs of it, whatever its size: reading one takes some microseconds
NUMBERS = {"u8": "<B", "i8": "<b", "u32": "<I", "i32": "<i", "f32": "<f", "i64": "<q", "u64": "<Q"}
WIDTH = {form: struct.calcsize(form) for form in (*NUMBERS.values(), "<H")}
TAG = "_type"  # of a union: the field before it, whose value is the position in the union, from 1


class FlatbufferTable:
    """Reads tables of `schema` from `data`.

    A kind is a number ("u8"), "text", a table's name, a vector ("[f32]", "[u8]" as bytes, "[Name]"), a union of tables
    ("A|B|C"), "span" for a vector of bytes that stays where it is: its start and length, "at" for where a table begins,
    or "" for a field that is not looked at.

    Raises:
        ValueError: From every method: an offset that leads out of the bytes, or more than the budget.
    """

    def __init__(self, data: bytes, schema: Schema, budget: int = BUDGET_BYTES) -> None:
        self.data, self.schema, self.left = data, schema, budget

    def root(self, table: str) -> dict[str, Any]:
        return self.table(table, self.follow(0))

    def table(self, name: str, at: int) -> dict[str, Any]:
        """The fields that are there. A union appears under its own name once its tag is known."""
        self._spend(TABLE_BYTES)
        found: dict[str, Any] = {}
        fields = self.schema[name]
        for (field, kind), offset in zip(fields, self._offsets(at, len(fields)), strict=False):  # later ones are absent
            where = at + offset
            if not offset or not kind:
                continue
            if "|" in kind:
                members, tag = kind.split("|"), found.get(field + TAG, 0)
                if 1 <= tag <= len(members):
                    found[field] = self.table(members[tag - 1], self.follow(where))
            else:
                found[field] = self._value(kind, where)
        return found

    def field(self, at: int, slot: int) -> int | None:
        """Where the field of the table at `at` lies; None when it is absent."""
        offsets = self._offsets(at, slot + 1)
        return at + offsets[slot] if slot < len(offsets) and offsets[slot] else None

    def _offsets(self, at: int, count: int) -> tuple[int, ...]:
        """Of the first `count` fields, from `at`, 0 for an absent one; as many as the vtable has."""
        vtable = at - self.number("<i", at)
        size = self.number("<H", vtable)
        count = max(0, min(count, (size - 4) // 2))
        if vtable + 4 + 2 * count > len(self.data):
            raise ValueError(f"a vtable of {size} bytes at byte {vtable} of {len(self.data)}")
        return struct.unpack_from(f"<{count}H", self.data, vtable + 4)

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Start and length of the vector that the field at `at` points to, its items of `width` bytes all there."""
        start = self.follow(at)
        count = self.number("<I", start)
        if start + 4 + count * width > len(self.data):
            raise ValueError(f"a vector of {count} items at byte {start} of {len(self.data)}")
        return start + 4, count

    def follow(self, at: int) -> int:
        return at + self.number("<I", at)

    def number(self, form: str, at: int) -> Any:
        if not 0 <= at <= len(self.data) - WIDTH[form]:
            raise ValueError(f"an offset to byte {at} of {len(self.data)}")
        return struct.unpack_from(form, self.data, at)[0]

    def _value(self, kind: str, at: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], at)
        if kind in ("text", "[u8]"):
            start, count = self.vector(at, 1)
            self._spend(count)
            value = self.data[start : start + count]
            return value.decode("utf-8", "replace") if kind == "text" else value
        if kind == "span":
            return self.vector(at, 1)
        if kind == "at":
            return self.follow(at)
        if kind[1:-1] in NUMBERS:
            form = NUMBERS[kind[1:-1]]
            start, count = self.vector(at, WIDTH[form])
            self._spend(WIDTH[form] * count)
            return struct.unpack_from(f"<{count}{form[1]}", self.data, start)
        if kind.startswith("["):
            start, count = self.vector(at, 4)
            return tuple(self.table(kind[1:-1], self.follow(start + 4 * i)) for i in range(count))
        return self.table(kind, self.follow(at))

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("more to read than such a file holds")
