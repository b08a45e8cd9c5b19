"""Det: LiteRT has no operator for it."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LARGEST = 16  # rows: the elimination is straight code


def det(n: Node, x: Value) -> Value:
    """Det (ONNX 11, 22): Gaussian elimination with partial pivoting, for matrices of a known size.

    Raises:
        AtRunTime: The size is free.
        Unsupported: More than LARGEST rows.
    """
    rows = x.dims[-1] or x.dims[-2]
    if rows is None:
        raise AtRunTime("a determinant of a matrix of free size")
    if rows > LARGEST:
        raise Unsupported(f"a determinant of {rows} rows, more than {LARGEST}")
    left, result = tf.reshape(x.onnx(), [-1, rows, rows]), 1.0
    for _ in range(rows):
        place = tf.argmax(tf.abs(left[:, :, 0]), 1, tf.int32)
        here = tf.equal(tf.range(left.shape[1])[None, :], place[:, None])
        pivot_row = tf.reduce_sum(tf.where(here[:, :, None], left, 0.0), 1)
        pivot = pivot_row[:, 0]
        result = result * tf.where(tf.equal(place, 0), pivot, -pivot)  # another row first changes the sign
        others = tf.where(here[:, :, None], left[:, :1], left)[:, 1:]
        factors = others[:, :, 0] / tf.where(tf.equal(pivot, 0.0), 1.0, pivot)[:, None]
        left = others[:, :, 1:] - factors[:, :, None] * pivot_row[:, None, 1:]
    sizes = [size(x.onnx(), axis) for axis in range(x.rank - 2)]
    return Value(tf.reshape(result, shape_of(sizes)), x.dtype)


OPS = {"Det": det}
