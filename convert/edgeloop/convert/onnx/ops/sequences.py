"""Sequences and optionals: their lengths are known while importing, so they are lists of Python and leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.joining import joined
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, renumbered, unsqueezed
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


class Absent:
    """An optional without an element."""


def sequence_construct(n: Node, *values: Value) -> list[Value]:
    """SequenceConstruct (ONNX 11)."""
    return list(values)


def sequence_empty(n: Node) -> list[Value]:
    """SequenceEmpty (ONNX 11)."""
    return []


def sequence_at(n: Node, values: list[Value], place: Value) -> Value:
    """SequenceAt (ONNX 11): a place below zero counts from the end."""
    return values[_place(n, len(values))]


def sequence_insert(n: Node, values: list[Value], value: Value, place: Value | None = None) -> list[Value]:
    """SequenceInsert (ONNX 11): before `place`, without it at the end."""
    i = len(values) if place is None else _place(n, len(values), 2)
    return [*values[:i], value, *values[i:]]


def sequence_erase(n: Node, values: list[Value], place: Value | None = None) -> list[Value]:
    """SequenceErase (ONNX 11): without `place` the last one."""
    i = len(values) - 1 if place is None else _place(n, len(values))
    return [*values[:i], *values[i + 1 :]]


def _place(n: Node, length: int, i: int = 1) -> int:
    """The place in input `i`.

    Raises:
        AtRunTime: It is computed.
        Unsupported: It lies outside the sequence.
    """
    place = int(np.ravel(n.known(i, "place in a sequence"))[0])
    if not -length <= place <= length - (i == 1):
        raise Unsupported(f"place {place} of a sequence of {length}")
    return place + length if place < 0 else place


def sequence_length(n: Node, values: list[Value]) -> Value:
    """SequenceLength (ONNX 11)."""
    return Value(const=np.asarray(len(values), np.int64))


def split_to_sequence(n: Node, x: Value, sizes: Value | None = None) -> list[Value]:
    """SplitToSequence (ONNX 11, 24): in parts of `split`, else one by one and then without the axis (keepdims=0)."""
    axis = n.attr("axis", 0) % x.rank
    total, place = x.dims[axis], x.perm.index(axis)
    widths = n.known(1, "split", 1)
    if isinstance(widths, int):
        if total is None:
            raise AtRunTime("a sequence as long as a free dimension")
        widths = [min(widths, total - i) for i in range(0, total, widths)]
    parts = [Value(part, x.dtype, x.perm) for part in tf.split(x.raw(), widths, place)]
    if sizes is None and not n.attr("keepdims", 1):
        kept = renumbered([a for a in x.perm if a != axis])
        parts = [Value(tf.squeeze(p.raw(), place), x.dtype, kept) for p in parts]
    return parts


def concat_from_sequence(n: Node, values: list[Value]) -> Value:
    """ConcatFromSequence (ONNX 11)."""
    if not values:
        raise Unsupported("an empty sequence")
    if not n.attr("new_axis", 0):
        return joined(values, n.attr("axis"))
    axis = n.attr("axis") % (values[0].rank + 1)
    return joined([unsqueezed(v, [axis]) for v in values], axis)


def sequence_map(n: Node, values: list[Value], *others: Any) -> tuple[list[Any], ...]:
    """SequenceMap (ONNX 17): the body for each element; other sequences go along, tensors are the same each time."""
    names = [v.name for v in n.attr("body").input]
    rows = []
    for i, value in enumerate(values):
        given = [value, *(o[i] if isinstance(o, list) else o for o in others)]
        rows.append(n.body("body", **dict(zip(names, given, strict=True))))
    return tuple([row[k] for row in rows] for k in range(len(n.proto.output)))


def optional(n: Node, value: Any = None) -> Any:
    """Optional (ONNX 15): an element stands for itself."""
    return Absent() if value is None else value


def optional_has_element(n: Node, value: Any = None) -> Value:
    """OptionalHasElement (ONNX 15, 18, 28)."""
    return Value(const=np.asarray(value is not None and not isinstance(value, Absent)))


def optional_get_element(n: Node, value: Any) -> Any:
    """OptionalGetElement (ONNX 15, 18, 28).

    Raises:
        Unsupported: It has none.
    """
    if isinstance(value, Absent):
        raise Unsupported("the element of an empty optional")
    return value


OPS = {
    "ConcatFromSequence": concat_from_sequence,
    "Optional": optional,
    "OptionalGetElement": optional_get_element,
    "OptionalHasElement": optional_has_element,
    "SequenceAt": sequence_at,
    "SequenceConstruct": sequence_construct,
    "SequenceEmpty": sequence_empty,
    "SequenceErase": sequence_erase,
    "SequenceInsert": sequence_insert,
    "SequenceLength": sequence_length,
    "SequenceMap": sequence_map,
    "SplitToSequence": split_to_sequence,
}
