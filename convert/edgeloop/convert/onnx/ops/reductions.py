"""Sums and the like along axes, running sums and products, and what is largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, renumbered, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LARGEST = 3.4028234e38  # of float32


def reduction(function: Callable[..., Any]) -> Callable[..., Value]:
    """An operator that reduces. Its axes are an attribute, or an input since opset 13 (ReduceSum) or 18 (others)."""

    def op(n: Node, x: Value, *_: Any) -> Value:
        axes = n.known(1, "axes")
        if not axes and n.attr("noop_with_empty_axes", 0):  # of every element by itself: a square stays a square
            return Value(function(x.raw()[None], [0], False), x.dtype, x.perm)
        axes = [a % x.rank for a in axes] if axes else list(range(x.rank))
        return reduced(x, function, axes, bool(n.attr("keepdims", 1)))

    return op


def reduced(x: Value, function: Callable[..., Any], axes: Sequence[int], keep: bool = True) -> Value:
    """`function(tensor, axes, keep)` along ONNX's axes, in whatever order `x` lies."""
    perm = x.perm if keep else renumbered([a for a in x.perm if a not in axes])
    if 0 in x.dims and None not in x.dims:  # TensorFlow knows what nothing adds up to, LiteRT does not
        with tf.init_scope():
            empty = function(tf.zeros(x.dims, x.raw().dtype), sorted(axes), keep).numpy()
        if np.isinf(empty).any():  # which the converter turns into the largest number
            raise Unsupported("an infinite result of no elements")
        return Value(const=empty.astype(x.dtype))
    t = function(x.raw(), sorted(x.perm.index(a) for a in axes), keep)
    return Value(t, x.dtype, perm)


def over_bool(function: Callable[..., Any], on_bool: Callable[..., Any]) -> Callable[..., Any]:
    """ReduceMax and ReduceMin (ONNX 20) of what is true or false."""
    return lambda t, axes, keep: on_bool(t, axes, keep) if t.dtype == tf.bool else function(t, axes, keep)


def mean(t: Any, axes: Any, keep: bool) -> Any:
    """ReduceMean (ONNX 1, 11, 13, 18): of whole numbers rounded towards zero."""
    if t.dtype.is_integer:
        count = tf.reduce_prod(tf.gather(tf.shape(t), axes))
        return tf.truncatediv(tf.reduce_sum(t, axes, keep), count)
    return tf.reduce_mean(t, axes, keep)


def lp_norm(t: Any, axes: Any, keep: bool, p: int = 2) -> Any:
    """ReduceL1, ReduceL2 (ONNX 1, 11, 13, 18) and other powers: of whole numbers by float32."""
    if p == 1:
        return tf.reduce_sum(tf.abs(t), axes, keep)
    real = tf.cast(t, tf.float32)
    if p == 2:
        return tf.cast(tf.sqrt(tf.reduce_sum(real * real, axes, keep)), t.dtype)
    return tf.cast(tf.pow(tf.reduce_sum(tf.pow(tf.abs(real), float(p)), axes, keep), 1.0 / p), t.dtype)


def log_sum(t: Any, axes: Any, keep: bool) -> Any:
    """ReduceLogSum (ONNX 1, 11, 13, 18)."""
    return tf.cast(tf.math.log(tf.cast(tf.reduce_sum(t, axes, keep), tf.float32)), t.dtype)


def log_sum_exp(t: Any, axes: Any, keep: bool) -> Any:
    """ReduceLogSumExp (ONNX 1, 11, 13, 18), without overflow; where all is minus infinity, so is the result."""
    real = tf.cast(t, tf.float32)
    top = tf.clip_by_value(tf.reduce_max(real, axes, True), -LARGEST, LARGEST)
    total = tf.math.log(tf.reduce_sum(tf.exp(real - top), axes, True)) + top
    return tf.cast(total if keep else tf.squeeze(total, axes), t.dtype)


def arg(function: Callable[..., Any]) -> Callable[..., Value]:
    """ArgMax, ArgMin (ONNX 1, 11, 12, 13): the first of equals, or the last."""

    def op(n: Node, x: Value) -> Value:
        axis = n.attr("axis", 0) % x.rank
        place, t = x.perm.index(axis), x.raw()
        if n.attr("select_last_index", 0):
            t = size(t, place) - 1 - function(tf.reverse(t, [place]), place, tf.int32)
        else:
            t = function(t, place, tf.int32)
        if n.attr("keepdims", 1):
            return Value(tf.expand_dims(t, place), np.int64, x.perm)
        return Value(t, np.int64, renumbered([a for a in x.perm if a != axis]))

    return op


def with_axis_last(x: Value, axis: int) -> tuple[Any, tuple[int, ...]]:
    """For operators that work along the last axis: at most one transposition, which the result keeps."""
    perm = x.perm if x.perm[-1] == axis else (*(a for a in x.perm if a != axis), axis)
    return x.to(perm), perm


def top_k(n: Node, x: Value, *_: Any) -> tuple[Value, Value]:
    """TopK (ONNX 1, 10, 11, 24): sorted; of equal values the one that comes first."""
    axis, k = n.attr("axis", -1) % x.rank, n.given(1)
    count = int(np.ravel(n.known(1, "k"))[0]) if k is None or k.const is not None else tf.reshape(k.onnx(), [])
    t, perm = with_axis_last(x, axis)
    largest = n.attr("largest", 1)
    values, places = tf.math.top_k(t if largest else -t, count)
    return Value(values if largest else -values, x.dtype, perm), Value(places, np.int64, perm)


def cumulative_sum(n: Node, x: Value, axis: Value) -> Value:
    """CumSum (ONNX 11, 14)."""
    place = x.perm.index(int(np.ravel(n.known(1, "axis"))[0]) % x.rank)
    t = tf.cumsum(x.raw(), place, exclusive=bool(n.attr("exclusive", 0)), reverse=bool(n.attr("reverse", 0)))
    return Value(t, x.dtype, x.perm)


def cumulative_product(n: Node, x: Value, axis: Value) -> Value:
    """CumProd (ONNX 26): LiteRT has no kernel, so by doubling. Every step multiplies by what lies 1, 2, 4 ... before.

    Raises:
        AtRunTime: The axis has a free size.
    """
    place = x.perm.index(int(np.ravel(n.known(1, "axis"))[0]) % x.rank)
    t, count = x.raw(), x.raw().shape[place]
    if count is None:
        raise AtRunTime("a running product along a free dimension")
    back = bool(n.attr("reverse", 0))

    def shifted(t: Any, by: int) -> Any:
        pads, kept = [[0, 0]] * x.rank, [slice(None)] * x.rank
        pads[place] = [0, by] if back else [by, 0]
        kept[place] = slice(by, None) if back else slice(None, count)
        return tf.pad(t, pads, constant_values=tf.ones([], t.dtype))[tuple(kept)]

    t = shifted(t, 1) if n.attr("exclusive", 0) else t
    for step in (1 << k for k in range(max(count - 1, 0).bit_length())):
        t = t * shifted(t, step)
    return Value(t, x.dtype, x.perm)


OPS: dict[str, Callable[..., Any]] = {
    "ArgMax": arg(tf.argmax),
    "ArgMin": arg(tf.argmin),
    "CumProd": cumulative_product,
    "CumSum": cumulative_sum,
    "ReduceL1": reduction(lambda t, axes, keep: lp_norm(t, axes, keep, 1)),
    "ReduceL2": reduction(lp_norm),
    "ReduceLogSum": reduction(log_sum),
    "ReduceLogSumExp": reduction(log_sum_exp),
    "ReduceMax": reduction(over_bool(tf.reduce_max, tf.reduce_any)),
    "ReduceMean": reduction(mean),
    "ReduceMin": reduction(over_bool(tf.reduce_min, tf.reduce_all)),
    "ReduceProd": reduction(tf.reduce_prod),
    "ReduceSum": reduction(tf.reduce_sum),
    "ReduceSumSquare": reduction(lambda t, axes, keep: tf.reduce_sum(t * t, axes, keep)),
    "TopK": top_k,
}
