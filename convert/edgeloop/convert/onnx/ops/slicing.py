"""Slice, with starts, ends, axes and steps that are attributes, constants or computed."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import Value, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LARGE = 2**31 - 2  # from there on a bound means "to the end"


def slice_(n: Node, x: Value, *_: Any) -> Value:
    """Slice (ONNX 1: attributes; 10, 11, 13: inputs; steps since 10).

    Bounds beyond the data are cut, as Python does; PyTorch writes 2^63 - 1 for "to the end", which no int32 holds.
    Computed axes are supported: every axis looks for its bounds among them.
    """
    starts, axes, steps = n.given(1), n.given(3), n.given(4)
    if any(v is not None and v.const is None for v in (axes, steps)):
        return _computed(n, x)
    count = len(n.attr("starts")) if starts is None else starts.dims[0]
    if count is None:
        return _computed(n, x)
    axes, steps = [a % x.rank for a in n.known(3, "axes", list(range(count)))], n.known(4, "steps", [1] * count)
    first = targets(starts) if starts is not None else list(n.attr("starts"))
    last = targets(n.given(2)) if n.given(2) is not None else list(n.attr("ends"))
    spec: list[slice] = [slice(None)] * x.rank
    for axis, a, b, step in zip(axes, first, last, steps, strict=True):
        spec[x.perm.index(axis)] = slice(*bounds(a, b, step, x.dims[axis]), step)
    if all(s in (slice(None), slice(None, None, 1)) for s in spec):
        return x
    return Value(x.raw()[tuple(spec)], x.dtype, x.perm)


def bounds(start: Any, end: Any, step: int, total: int | None) -> tuple[Any, Any]:
    """Start and end as TensorFlow takes them: None for "from the beginning" and "to the end" of a walk by `step`."""
    if isinstance(start, int):
        if step > 0:
            start = None if start == 0 or start < -LARGE or (total is not None and start <= -total) else start
        elif start > LARGE or (total is not None and start >= total - 1):
            start = None
        elif total is not None and start < -total:
            start = 0
        if start is not None and abs(start) > LARGE:
            start = LARGE if start > 0 else -LARGE
    if isinstance(end, int):
        beyond = end > LARGE or (total is not None and end >= total) if step > 0 else None
        before = end < -LARGE or (total is not None and end < -total) if step < 0 else None
        if beyond or before:
            end = None
        elif abs(end) > LARGE:
            end = LARGE if end > 0 else -LARGE
    return start, end


def _computed(n: Node, x: Value) -> Value:
    """With axes or steps that only the device knows, or without a known number of them."""
    t = x.onnx()
    starts, ends = (tf.reshape(v.onnx(), [-1]) for v in n.inputs[1:3])
    axes = tf.range(tf.shape(starts)[0]) if n.given(3) is None else tf.reshape(n.given(3).onnx(), [-1])
    steps = tf.ones_like(starts) if n.given(4) is None else tf.reshape(n.given(4).onnx(), [-1])
    chosen = tf.equal(tf.math.floormod(axes, x.rank)[None, :], tf.range(x.rank)[:, None])  # [rank, axes]
    named = tf.reduce_any(chosen, 1)

    def of_each_axis(numbers: Any, otherwise: Any) -> Any:
        found = tf.reduce_sum(tf.where(chosen, numbers[None, :], 0), 1)
        return tf.where(named, found, otherwise)

    sizes = tf.stack([tf.convert_to_tensor(size(t, a)) for a in range(x.rank)])
    begin, end = of_each_axis(starts, tf.zeros_like(sizes)), of_each_axis(ends, sizes)
    result = tf.strided_slice(t, begin, end, of_each_axis(steps, tf.ones_like(sizes)))
    result.set_shape([None] * x.rank)
    return Value(result, x.dtype)


OPS = {"Slice": slice_}
