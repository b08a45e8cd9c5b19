"""Convolutions that read where the net says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.convolution import filters_last
from edgeloop.convert.onnx.value import Unsupported, Value, channels_last, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def deform_conv(n: Node, x: Value, w: Value, offset: Value, b: Value | None = None, mask: Value | None = None) -> Value:
    """DeformConv (ONNX 19, 22) of images: every tap of a window is read at its place plus an offset, between pixels.

    Raises:
        Unsupported: More or fewer than two spatial axes.
    """
    if x.rank != 4 or None in w.dims:
        raise Unsupported(f"a deformable convolution over {x.rank - 2} axes")
    out, _, height, width = (int(d or 0) for d in w.dims)
    groups, parts, taps = n.attr("group", 1), n.attr("offset_group", 1), height * width
    t, moves = x.last(), offset.onnx()
    rows, columns = size(moves, 2), size(moves, 3)
    batch = size(t, 0)
    moves = tf.reshape(moves, shape_of([batch, parts, taps, 2, rows, columns]))
    places = [moves[:, :, :, axis] + base for axis, base in enumerate(taps_of(n, height, width, rows, columns))]
    shares = None if mask is None else tf.reshape(mask.onnx(), shape_of([batch, parts, taps, rows, columns]))
    channels = tf.split(t, parts, -1) if parts > 1 else [t]
    read = [
        between(c, places[0][:, i], places[1][:, i], None if shares is None else shares[:, i])
        for i, c in enumerate(channels)
    ]
    seen = tf.transpose(tf.concat(read, -1), (0, 2, 3, 1, 4))  # [batch, rows, columns, taps, channels]
    filters = tf.split(tf.reshape(filters_last(w), [taps, -1, out]), groups, -1)
    ys = []
    for part, f in zip(tf.split(seen, groups, -1), filters, strict=True):
        flat = tf.reshape(part, shape_of([batch, rows, columns, taps * f.shape[1]]))
        ys.append(tf.matmul(flat, tf.reshape(f, [taps * f.shape[1], out // groups])))
    y = tf.concat(ys, -1)
    return Value(y if b is None else tf.nn.bias_add(y, b.onnx()), x.dtype, channels_last(4))


def taps_of(n: Node, height: int, width: int, rows: Any, columns: Any) -> list[Any]:
    """Row and column that each tap of each window reads without an offset: [taps, rows, 1] and [taps, 1, columns]."""
    strides, holes, pads = n.attr("strides", [1, 1]), n.attr("dilations", [1, 1]), n.attr("pads", [0] * 4)
    i, j = np.divmod(np.arange(height * width), width)
    down = tf.range(rows)[None, :, None] * strides[0] + tf.constant(i * holes[0] - pads[0], tf.int32)[:, None, None]
    along = tf.range(columns)[None, None, :] * strides[1] + tf.constant(j * holes[1] - pads[1], tf.int32)[:, None, None]
    return [tf.cast(down, tf.float32), tf.cast(along, tf.float32)]


def between(t: Any, y: Any, x: Any, share: Any) -> Any:
    """`t` [batch, height, width, channels] at rows `y` and columns `x` [batch, taps, rows, columns], times `share`.

    Linear between the four pixels around; pixels outside are zero.
    """
    height, width = size(t, 1), size(t, 2)
    flat = tf.reshape(t, shape_of([size(t, 0), height * width, t.shape[-1]]))
    top, left = tf.floor(y), tf.floor(x)
    total = None
    for row, down in ((top, top + 1.0 - y), (top + 1.0, y - top)):
        for column, along in ((left, left + 1.0 - x), (left + 1.0, x - left)):
            weight = down * along * within(row, height) * within(column, width)
            weight = weight if share is None else weight * share
            place = clipped(row, height) * width + clipped(column, width)
            part = tf.gather(flat, place, axis=1, batch_dims=1) * tf.expand_dims(weight, -1)
            total = part if total is None else total + part
    return total


def within(place: Any, length: Any) -> Any:
    """1 where a place lies on the axis, else 0."""
    return tf.cast((place >= 0.0) & (place < tf.cast(length, tf.float32)), tf.float32)


def clipped(place: Any, length: Any) -> Any:
    """The nearest place on the axis, int32."""
    return tf.cast(tf.clip_by_value(place, 0.0, tf.cast(length - 1, tf.float32)), tf.int32)


OPS: dict[str, Callable[..., Any]] = {"DeformConv": deform_conv}
