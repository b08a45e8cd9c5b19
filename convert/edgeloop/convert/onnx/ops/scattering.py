"""ScatterElements, ScatterND and TensorScatter: write elements to places.

LiteRT's SCATTER_ND adds up what meets at one place, into zeros; it has no other scattering. "add" is that. Without a
reduction places are not repeated (ONNX says so), so a mask chooses between old and new. For "mul", "max" and "min"
places that are repeated are written in rounds: the k-th update of each place in round k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.indexing import element_places, places_of_slices
from edgeloop.convert.onnx.ops.selection import ascending, true_places
from edgeloop.convert.onnx.value import Unsupported, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

REDUCTIONS: dict[str, Callable] = {"mul": tf.multiply, "max": tf.maximum, "min": tf.minimum}


def scatter_elements(n: Node, x: Value, index: Value, updates: Value) -> Value:
    """ScatterElements (ONNX 11, 13; 16: add, mul; 18: max, min), and Scatter (9, 11), which is the same."""
    return Value(scattered(x.onnx(), element_places(n, x, index), updates.onnx(), n.attr("reduction", "none")), x.dtype)


def scatter_nd(n: Node, x: Value, index: Value, updates: Value) -> Value:
    """ScatterND (ONNX 11, 13; 16: add, mul; 18: max, min)."""
    places = places_of_slices(x.onnx(), index)
    return Value(scattered(x.onnx(), places, updates.onnx(), n.attr("reduction", "none")), x.dtype)


def scattered(t: Any, places: Any, updates: Any, reduction: str) -> Any:
    """`t` with `updates` at `places` [..., axes], each reduced with what is there."""
    if reduction not in ("none", "add", *REDUCTIONS):
        raise Unsupported(f"scattering with reduction {reduction}")
    depth, sizes = places.shape[-1], [size(t, a) for a in range(t.shape.rank)]
    flat = tf.reshape(places, [-1, depth])
    rows = tf.reshape(updates, shape_of([size(flat, 0), *sizes[depth:]]))
    if reduction == "add":
        return t + tf.scatter_nd(flat, rows, shape_of(sizes))
    if reduction == "none":
        return chosen(t, flat, rows, shape_of(sizes), lambda old, new: new)
    return _in_rounds(t, flat, rows, sizes, REDUCTIONS[reduction])


def chosen(t: Any, places: Any, rows: Any, sizes: Any, combine: Callable) -> Any:
    """`combine(old, new)` at places that are not repeated, the old elements elsewhere."""
    as_bool, rows = t.dtype == tf.bool, tf.cast(rows, tf.int32) if t.dtype == tf.bool else rows
    hit = tf.scatter_nd(places, tf.ones_like(rows, tf.int32), sizes)
    new = tf.scatter_nd(places, rows, sizes)
    return tf.where(hit > 0, combine(t, tf.not_equal(new, 0) if as_bool else new), t)


def _in_rounds(t: Any, places: Any, rows: Any, sizes: list[Any], combine: Callable) -> Any:
    """As `chosen`, with places that may be repeated: as many rounds as the one that is repeated most often."""
    strides, step = [], 1
    for d in reversed(sizes[: places.shape[-1]]):
        strides.append(step)
        step = step * d
    linear = tf.reduce_sum(places * shape_of(strides[::-1]), -1)
    round_of = _occurrence(linear)
    rounds, whole = tf.reduce_max(tf.concat([round_of, [-1]], 0)) + 1, shape_of(sizes)

    def one(i: Any, t: Any) -> tuple:
        now = true_places(tf.equal(round_of, i))
        return i + 1, chosen(t, tf.gather(places, now), tf.gather(rows, now), whole, combine)

    return tf.while_loop(lambda i, _: i < rounds, one, (0, t), shape_invariants=(tf.TensorShape([]), t.shape))[1]


def _occurrence(keys: Any) -> Any:
    """For each element of a vector of whole numbers, how many equal ones stand before it."""
    order = ascending(keys)
    ordered = tf.gather(keys, order)
    new = tf.concat([tf.ones_like(order[:1], tf.bool), tf.not_equal(ordered[1:], ordered[:-1])], 0)
    starts = tf.gather(true_places(new), tf.cumsum(tf.cast(new, tf.int32)) - 1)
    return tf.scatter_nd(order[:, None], tf.range(tf.shape(keys)[0]) - starts, tf.shape(keys))


def tensor_scatter(n: Node, x: Value, updates: Value, begin: Value | None = None) -> Value:
    """TensorScatter (ONNX 24): a run of updates into a cache, from a place of its own in each row of the batch.

    Every place of the cache looks for its update, which needs a GATHER and a SELECT, and no scattering.

    Raises:
        Unsupported: A mode that the specification lacks.
    """
    mode, axis = n.attr("mode", "linear"), n.attr("axis", -2) % x.rank
    if mode not in ("linear", "circular"):
        raise Unsupported(f"a TensorScatter in mode {mode}")
    order = [0, axis, *(a for a in range(1, x.rank) if a != axis)]
    cache, new = x.to(order), updates.to(order)
    length, count = size(cache, 1), size(new, 1)
    first = tf.zeros([1, 1], tf.int32) if begin is None else tf.reshape(begin.onnx(), [-1, 1])
    first = tf.broadcast_to(first, shape_of([size(cache, 0), 1]))
    place = tf.expand_dims(tf.range(length), 0) - first
    place = tf.math.floormod(place, length) if mode == "circular" else place
    inside = tf.logical_and(place >= 0, place < count)
    got = tf.gather(new, tf.clip_by_value(place, 0, count - 1), axis=1, batch_dims=1)
    for _ in range(x.rank - 2):
        inside = tf.expand_dims(inside, -1)
    return Value(tf.where(inside, got, cache), x.dtype, order)


OPS = {
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
}
