"""Operators whose result is as long as the data say: Compress, NonZero, Unique. LiteRT has WHERE for the places."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

SORTED_COLUMNS = 64  # a slice of more elements is refused by Unique: each is a sort of its own


def true_places(mask: Any) -> Any:
    """Where a vector of truth values is true, int32."""
    return tf.reshape(tf.cast(tf.where(mask), tf.int32), [-1])


def ascending(keys: Any) -> Any:
    """The places of a vector's elements in ascending order. TOPK_V2 leaves equal ones in their order."""
    return tf.math.top_k(-keys, tf.shape(keys)[0]).indices


def compress(n: Node, x: Value, condition: Value) -> Value:
    """Compress (ONNX 9, 11, 28): where the condition holds, along an axis or of all elements; it may be shorter."""
    axis, places = n.attr("axis"), true_places(condition.onnx())
    if axis is None:
        return Value(tf.gather(tf.reshape(x.onnx(), [-1]), places), x.dtype)
    return Value(tf.gather(x.raw(), places, axis=x.perm.index(axis % x.rank)), x.dtype, x.perm)


def non_zero(n: Node, x: Value) -> Value:
    """NonZero (ONNX 9, 13): the places row by row, one column each. LiteRT's WHERE finds them in the same order."""
    t = x.onnx() if x.rank else tf.reshape(x.onnx(), [1])
    t = t if t.dtype == tf.bool else tf.not_equal(t, tf.zeros([], t.dtype))
    return Value(tf.transpose(tf.cast(tf.where(t), tf.int32)), np.int64)


def unique(n: Node, x: Value) -> tuple[Value, Value, Value, Value]:
    """Unique (ONNX 11, 28) of all elements, or of slices along an axis: by stable sorts.

    The values, the place where each appears first, for each element the place of its value, and how often each is.

    Raises:
        AtRunTime: Slices of free sizes.
        Unsupported: Slices of more than SORTED_COLUMNS elements.
    """
    axis = n.attr("axis")
    order = [axis % x.rank, *(a for a in range(x.rank) if a != axis % x.rank)] if axis is not None else range(x.rank)
    turned = x.to(order)
    rows = tf.reshape(turned, [-1, 1] if axis is None else [size(turned, 0), _columns(turned)])
    keys = tf.cast(rows, tf.int32) if rows.dtype == tf.bool else rows
    places = ascending(keys[:, -1])
    for column in range(keys.shape[1] - 2, -1, -1):  # the first column counts most, so it is sorted by last
        places = tf.gather(places, ascending(tf.gather(keys[:, column], places)))
    ordered = tf.gather(keys, places)
    differs = tf.reduce_any(tf.not_equal(ordered[1:], ordered[:-1]), 1)
    new = tf.concat([tf.ones_like(places[:1], tf.bool), differs], 0)
    starts = true_places(new)
    counts, firsts = tf.concat([starts[1:], tf.shape(places)], 0) - starts, tf.gather(places, starts)
    run = tf.cumsum(tf.cast(new, tf.int32)) - 1  # of each row in order
    if not n.attr("sorted", 1):  # by first appearance
        rank = ascending(firsts)
        firsts, counts, run = tf.gather(firsts, rank), tf.gather(counts, rank), tf.gather(ascending(rank), run)
    inverse = tf.scatter_nd(places[:, None], run, tf.shape(places))
    if axis is None:
        values = Value(tf.gather(rows[:, 0], firsts), x.dtype)
    else:
        values = Value(tf.gather(turned, firsts), x.dtype, order)
    return values, Value(firsts, np.int64), Value(inverse, np.int64), Value(counts, np.int64)


def _columns(t: Any) -> int:
    count = 1
    for d in t.shape[1:]:
        if d is None:
            raise AtRunTime("unique slices of free sizes")
        count *= d
    if not 0 < count <= SORTED_COLUMNS:
        raise Unsupported(f"unique slices of {count} elements")
    return count


OPS = {"Compress": compress, "NonZero": non_zero, "Unique": unique}
