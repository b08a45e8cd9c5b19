"""MaxUnpool: the largest elements of windows back to where they came from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeloop.convert.onnx.fold import refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.padding import padded
from edgeloop.convert.onnx.value import AtRunTime, Value
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


OPS = {"MaxUnpool": max_unpool}
