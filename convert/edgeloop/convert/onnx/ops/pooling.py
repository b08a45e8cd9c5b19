"""Pools, channels last. LiteRT's pools have no holes and two axes: others are taken axis by axis, which is the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.padding import padded
from edgeloop.convert.onnx.ops.reductions import lp_norm, reduced
from edgeloop.convert.onnx.ops.windows import Windows, windows
from edgeloop.convert.onnx.value import Value, channels_last, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LOWEST = -3.4028235e38  # of float32
NOT_NEGATIVE = frozenset({"Relu", "Relu6", "Sigmoid", "Softmax", "Abs", "Exp", "Square"})
KEEPS_SIGN = frozenset(
    {"AvgPool", "ConcatV2", "ExpandDims", "Identity", "MaxPool", "Pad", "Reshape", "Round", "Squeeze", "Transpose"}
)


def max_pool(n: Node, x: Value) -> Value | tuple[Value, Value]:
    """MaxPool (ONNX 1, 8, 10, 11, 12, 22), with Indices where they are asked for."""
    window, t = windows(n, n.attr("kernel_shape"), x.dims[2:]), tf.cast(x.last(), tf.float32)
    y = pooled(t, window, True, "SAME") if builtin_same(window) else pooled(below_all(t, window), window, True)
    largest = Value(tf.cast(y, x.raw().dtype), x.dtype, channels_last(x.rank))
    if len(n.wanted) > 1 and n.wanted[1]:
        return largest, indices(t, window, bool(n.attr("storage_order", 0)))
    return largest


def average_pool(n: Node, x: Value) -> Value:
    """AveragePool (ONNX 1, 7, 10, 11, 19, 22): the divisor is how many elements count, pads with count_include_pad.

    What ceil_mode adds behind the pads never counts.
    """
    window, t = windows(n, n.attr("kernel_shape"), x.dims[2:]), x.last()
    all_count = bool(n.attr("count_include_pad", 0))
    if builtin_same(window) and not all_count:
        return Value(pooled(t, window, False, "SAME"), x.dtype, channels_last(x.rank))
    y = pooled(padded(t, window.around_image()), window, False)
    pads = window.fixed_pads()
    counted = window.counted if all_count else [(0, 0)] * len(pads)
    if list(counted) != list(pads):
        ones = tf.ones([1, *[size(t, i + 1) for i in range(len(pads))], 1])
        ones = padded(ones, [(0, 0), *counted, (0, 0)], value=1.0)
        rest = [(a - c, b - d) for (a, b), (c, d) in zip(pads, counted, strict=True)]
        y = y / pooled(padded(ones, [(0, 0), *rest, (0, 0)]), window, False)
    return Value(y, x.dtype, channels_last(x.rank))


def lp_pool(n: Node, x: Value) -> Value:
    """LpPool (ONNX 1, 2, 11, 18, 22): the p-th root of an average times its number of elements. Pads are zeros."""
    p, window = n.attr("p", 2), windows(n, n.attr("kernel_shape"), x.dims[2:])
    t = tf.abs(padded(x.last(), window.around_image()))
    t = t if p == 1 else t * t if p == 2 else tf.pow(t, float(p))
    total = pooled(t, window, False) * float(math.prod(window.kernel))
    y = total if p == 1 else tf.sqrt(total) if p == 2 else tf.pow(total, 1.0 / p)
    return Value(y, x.dtype, channels_last(x.rank))


def global_pool(function: Callable[..., Any]) -> Callable[..., Value]:
    """GlobalAveragePool, GlobalMaxPool (ONNX 1, 22)."""
    return lambda n, x: reduced(x, function, list(range(2, x.rank)))


def global_lp_pool(n: Node, x: Value) -> Value:
    """GlobalLpPool (ONNX 1, 2, 22)."""
    return reduced(x, lambda t, axes, keep: lp_norm(t, axes, keep, n.attr("p", 2)), list(range(2, x.rank)))


def builtin_same(window: Windows) -> bool:
    """Whether LiteRT's pools, which have two axes and no holes, pad as the window asks for."""
    return window.how == "SAME" and len(window.kernel) < 3 and window.dense


def below_all(t: Any, window: Windows) -> Any:
    """`t` with pads that no maximum takes.

    float32's lowest number would ruin the range that int8 is made with, so: zeros where nothing is negative; or
    elements of the window once more, where all windows over a pad hold those that lie symmetrically.
    """
    pads = window.around_image()
    if not window.padding:
        return t
    if not_negative(t):
        return padded(t, pads)
    axes = list(zip(t.shape[1:-1], pads[1:-1], window.kernel, strict=True))
    if window.dense and all(s is not None and max(both) <= min(s, k // 2) for s, both, k in axes):
        return padded(t, pads, "symmetric")
    return padded(t, pads, value=LOWEST)


def not_negative(t: Any, depth: int = 12) -> bool:
    """Whether the operators that made a tensor leave nothing below zero; no more than `depth` of them are looked at."""
    op = t.op
    if op.type in NOT_NEGATIVE:
        return True
    if op.type in ("Maximum", "Minimum", "Mul", "RealDiv"):  # as a QuantizeLinear with its DequantizeLinear has them
        known = tf.get_static_value(op.inputs[1])
        if known is None or np.any(known < 0):
            return False
        return op.type == "Maximum" or (bool(depth) and not_negative(op.inputs[0], depth - 1))
    if op.type not in KEEPS_SIGN or not depth:
        return False
    parts = op.inputs[:-1] if op.type == "ConcatV2" else op.inputs[:1]
    return all(not_negative(part, depth - 1) for part in parts)


def pooled(t: Any, window: Windows, largest: bool, how: str = "VALID") -> Any:
    """Maxima or averages over one, two or three axes; `t` has its pads, or `how` is SAME."""
    kernel, strides, dilations = list(window.kernel), list(window.strides), list(window.dilations)
    if len(kernel) == 1:
        y = pool_2d(tf.expand_dims(t, 1), [1, *kernel], [1, *strides], [1, *dilations], largest, how)
        return tf.squeeze(y, 1)
    if len(kernel) == 2:
        return pool_2d(t, kernel, strides, dilations, largest, how)
    batch, channels = size(t, 0), t.shape[-1]
    y = tf.reshape(t, shape_of([batch * size(t, 1), size(t, 2), size(t, 3), channels]))
    y = pool_2d(y, kernel[1:], strides[1:], dilations[1:], largest, how)
    height, width = size(y, 1), size(y, 2)
    y = tf.reshape(y, shape_of([batch, size(t, 1), height * width, channels]))
    y = pool_2d(y, [kernel[0], 1], [strides[0], 1], [dilations[0], 1], largest, how)
    return tf.reshape(y, shape_of([batch, size(y, 1), height, width, channels]))


def pool_2d(
    t: Any, kernel: Sequence[int], strides: Sequence[int], holes: Sequence[int], largest: bool, how: str
) -> Any:
    """LiteRT's pools; with holes in the window, the elements of a window as one shifted copy each, axis by axis."""
    if all(h == 1 for h in holes):
        return (tf.nn.max_pool2d if largest else tf.nn.avg_pool2d)(t, kernel, strides, how)
    for axis in (1, 2):
        taps = shifts(t, axis, kernel[axis - 1], strides[axis - 1], holes[axis - 1])
        t = taps[0]
        for tap in taps[1:]:
            t = tf.maximum(t, tap) if largest else t + tap
        t = t if largest else t / len(taps)
    return t


def shifts(t: Any, axis: int, taps: int, stride: int, hole: int) -> list[Any]:
    """For each tap of a window along an axis, the elements that it meets."""
    found = []
    for i in range(taps):
        kept = [slice(None)] * t.shape.rank
        kept[axis] = slice(i * hole, (i - taps + 1) * hole or None, stride)
        found.append(t[tuple(kept)])
    return found


def indices(t: Any, window: Windows, column_major: bool) -> Value:
    """Where each maximum lies in the whole of [N, C, D1, ...]; the first of equals.

    LiteRT has no pool that says so: the taps of a window, one shifted copy of the image each, compete one by one.
    `column_major` (storage_order 1) counts along the first spatial axis fastest.
    """
    rank, channels = len(window.kernel), size(t, t.shape.rank - 1)
    sizes = [size(t, i + 1) for i in range(rank)]
    order = range(rank) if column_major else reversed(range(rank))
    steps, step = [0] * rank, 1
    for i in order:
        steps[i], step = step, step * sizes[i]
    places = tf.zeros([1] * (rank + 2), tf.int32)
    for i in range(rank):
        places += on_axis(tf.range(sizes[i]) * steps[i], i + 1, rank + 2)
    values, places = [padded(t, window.around_image(), value=LOWEST)], [padded(places, window.around_image())]
    for i in range(rank):
        taps = (window.kernel[i], window.strides[i], window.dilations[i])
        values, places = ([tap for v in side for tap in shifts(v, i + 1, *taps)] for side in (values, places))
    best, at = values[0], places[0]
    for value, place in zip(values[1:], places[1:], strict=True):
        at = tf.where(value > best, place, at)
        best = tf.maximum(best, value)
    image = on_axis(tf.range(size(t, 0)) * channels, 0, rank + 2) + on_axis(tf.range(channels), rank + 1, rank + 2)
    return Value(at + image * step, np.int64, channels_last(rank + 2))


def on_axis(vector: Any, axis: int, rank: int) -> Any:
    """A vector along one of `rank` axes."""
    return tf.reshape(vector, [-1 if a == axis else 1 for a in range(rank)])


OPS: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool(tf.reduce_mean),
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_pool(tf.reduce_max),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
