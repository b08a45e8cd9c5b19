"""Concat and Split."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.elementwise import align
from edgeloop.convert.onnx.value import Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def concat(n: Node, *values: Value) -> Value:
    """Concat (ONNX 1, 4, 11, 13)."""
    return joined(values, n.attr("axis", 1))


def joined(values: Any, axis: int) -> Value:
    """The values one after the other along an axis; without empty vectors, which exporters write for "nothing"."""
    values = tuple(v for v in values if v.rank > 1 or 0 not in v.dims) or values[:1]
    tensors, perm = align(values)
    if len(tensors) == 1:
        return values[0]
    return Value(tf.concat(tensors, perm.index(axis % values[0].rank)), values[0].dtype, perm)


def split(n: Node, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Split (ONNX 1, 2, 11: attribute; 13: input split; 18: num_outputs, the last part may be smaller)."""
    axis = n.attr("axis", 0) % x.rank
    total, place = x.dims[axis], x.perm.index(axis)
    if sizes is not None and sizes.const is None:
        return _at_computed_places(x, place, sizes.onnx(), len(n.proto.output))
    widths = n.known(1, "split")
    if widths is None:
        count = n.attr("num_outputs", len(n.proto.output))
        if total is None:  # LiteRT refuses at run time what does not go up
            widths = count
        else:
            step = -(-total // count)
            widths = [max(0, min(step, total - i * step)) for i in range(count)]
    return tuple(Value(part, x.dtype, x.perm) for part in tf.split(x.raw(), widths, place))


def _at_computed_places(x: Value, place: int, sizes: Any, count: int) -> tuple[Value, ...]:
    ends = tf.cumsum(sizes)
    before: list[Any] = [slice(None)] * place
    return tuple(Value(x.raw()[(*before, slice(ends[i] - sizes[i], ends[i]))], x.dtype, x.perm) for i in range(count))


OPS = {"Concat": concat, "Split": split}
