"""Gather, GatherElements and GatherND: take elements from places."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Value, renumbered, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def gather(n: Node, x: Value, index: Value) -> Value:
    """Gather (ONNX 1, 11, 13). One known index is a slice, which keeps the order of axes and costs no kernel more."""
    axis = n.attr("axis", 0) % x.rank
    place = x.perm.index(axis)
    without = renumbered([a for a in x.perm if a != axis])
    if index.const is not None and index.const.size == 1 and index.rank < 2:
        i = int(index.const.item())
        spec: list[Any] = [slice(None)] * x.rank
        spec[place] = i if index.rank == 0 else slice(i, i + 1 or None)
        return Value(x.raw()[tuple(spec)], x.dtype, x.perm if index.rank else without)
    if index.rank > 1:
        t = tf.gather(x.onnx(), from_the_front(index, x.dims[axis], x.onnx(), axis), axis=axis)
        return Value(t, x.dtype)
    t = tf.gather(x.raw(), from_the_front(index, x.dims[axis], x.raw(), place), axis=place)
    return Value(t, x.dtype, x.perm if index.rank else without)


def from_the_front(index: Value, known: int | None, t: Any, axis: int) -> Any:
    """Indices that count from the front: ONNX's negative ones count from the end, LiteRT's kernels take none."""
    if index.const is not None and (known is not None or (index.const >= 0).all()):
        return tf.constant(np.where(index.const < 0, index.const + (known or 0), index.const).astype(np.int32))
    i = index.onnx()
    return tf.where(i < 0, i + size(t, axis), i)


def element_places(n: Node, x: Value, index: Value) -> Any:
    """For GatherElements and ScatterElements: for every element of `index`, its place in `x` along all axes."""
    axis = n.attr("axis", 0) % x.rank
    i = from_the_front(index, x.dims[axis], x.onnx(), axis)
    grid = []
    for a in range(x.rank):
        column = tf.reshape(tf.range(size(i, a)), [-1 if b == a else 1 for b in range(x.rank)])
        grid.append(i if a == axis else column + tf.zeros_like(i))
    return tf.stack(grid, -1)


def gather_elements(n: Node, x: Value, index: Value) -> Value:
    """GatherElements (ONNX 11, 13)."""
    return Value(tf.gather_nd(x.onnx(), element_places(n, x, index)), x.dtype)


def places_of_slices(t: Any, index: Value, batch: int = 0) -> Any:
    """The indices of GatherND and ScatterND, counted from the front.

    Raises:
        AtRunTime: The last axis, the number of axes that are indexed, is free.
    """
    i = index.onnx()
    if i.shape[-1] is None:
        raise AtRunTime("indices of an unknown number of axes")
    limits = tf.cast(shape_of([size(t, a) for a in range(batch, batch + i.shape[-1])]), tf.int32)
    return tf.where(i < 0, i + limits, i)


def gather_nd(n: Node, x: Value, index: Value) -> Value:
    """GatherND (ONNX 11; 12, 13: batch_dims, which LiteRT's kernel lacks: batch axes become leading indices)."""
    batch, t = n.attr("batch_dims", 0), x.onnx()
    i = places_of_slices(t, index, batch)
    columns = []
    for a in range(batch):
        column = tf.reshape(tf.range(size(i, a)), [-1 if b == a else 1 for b in range(i.shape.rank)])
        columns.append(column + tf.zeros_like(i[..., :1]))
    return Value(tf.gather_nd(t, tf.concat([*columns, i], -1) if batch else i), x.dtype)


OPS = {"Gather": gather, "GatherElements": gather_elements, "GatherND": gather_nd}
