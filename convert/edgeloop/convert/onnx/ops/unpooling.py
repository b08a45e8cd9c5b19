"""MaxUnpool and Col2Im: elements of windows back to where they came from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeloop.convert.onnx.fold import refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.padding import padded
from edgeloop.convert.onnx.value import AtRunTime, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def max_unpool(n: Node, x: Value, index: Value, sizes: Value | None = None) -> Value:
    """MaxUnpool (ONNX 9, 11, 22): places count through the whole tensor of the size that the windows had.

    Windows that overlap name one place several times, with the same number, so the sum is divided by their count
    (LiteRT's SCATTER_ND adds). A larger output_shape has zeros behind.

    Raises:
        AtRunTime: Free sizes.
    """
    spatial = x.rank - 2
    kernel, strides = n.attr("kernel_shape"), n.attr("strides", [1] * spatial)
    pads = n.attr("pads", [0] * 2 * spatial)
    if None in x.dims:
        raise AtRunTime("MaxUnpool of free sizes")
    known: list[int] = x.dims  # type: ignore[assignment]
    windows = zip(known[2:], strides, kernel, pads[:spatial], pads[spatial:], strict=True)
    dims = [*known[:2], *((d - 1) * s - a - b + k for d, s, k, a, b in windows)]
    refuse_large(dims)
    places, elements = tf.reshape(index.onnx(), [-1, 1]), tf.reshape(x.onnx(), [-1])
    total = [math.prod(dims)]
    result = tf.scatter_nd(places, elements, total)
    if any(k > s for k, s in zip(kernel, strides, strict=True)):
        result = result / tf.maximum(tf.scatter_nd(places, tf.ones_like(elements), total), 1.0)
    result = tf.reshape(result, dims)
    if sizes is not None:
        wanted = np.ravel(n.known(2, "output_shape")).tolist()
        result = padded(result, [(0, w - d) for w, d in zip(wanted, dims, strict=True)])
    return Value(result, x.dtype)


def col2im(n: Node, x: Value, image: Value, block: Value) -> Value:
    """Col2Im (ONNX 18): [batch, channels * block, blocks] added up where the blocks lie in the image.

    Raises:
        AtRunTime: Free sizes.
    """
    dims, kernel = (np.ravel(n.known(i, name)).tolist() for i, name in ((1, "image_shape"), (2, "block_shape")))
    rank = len(dims)
    strides, dilations = n.attr("strides", [1] * rank), n.attr("dilations", [1] * rank)
    pads = n.attr("pads", [0] * 2 * rank)
    if None in x.dims[1:]:
        raise AtRunTime("Col2Im of free sizes")
    refuse_large([*dims, *kernel])
    along = []  # of each axis: where element k of block b lies
    for i in range(rank):
        count = (dims[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        along.append(np.arange(kernel[i])[:, None] * dilations[i] + np.arange(count) * strides[i] - pads[i])
    place, inside = np.zeros([1, 1], np.int64), np.ones([1, 1], bool)
    for at, d in zip(along, dims, strict=True):
        shape = (place.shape[0] * at.shape[0], place.shape[1] * at.shape[1])
        place = (place[:, None, :, None] * d + at[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & ((at >= 0) & (at < d))[None, :, None, :]).reshape(shape)
    channels = x.dims[1] // math.prod(kernel)
    t = tf.reshape(x.onnx(), [-1, channels, place.size])
    rows = tf.gather(tf.transpose(t, [2, 0, 1]), np.flatnonzero(inside).astype(np.int32))
    places = tf.constant(place[inside].reshape(-1, 1), tf.int32)
    result = tf.scatter_nd(places, rows, shape_of([math.prod(dims), size(rows, 1), channels]))
    result = tf.reshape(result, shape_of([*dims, size(rows, 1), channels]))
    return Value(result, x.dtype, (*range(2, 2 + rank), 0, 1))


OPS = {"Col2Im": col2im, "MaxUnpool": max_unpool}
