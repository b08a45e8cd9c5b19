"""Softmax, LogSoftmax and Hardmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reductions import with_axis_last
from edgeloop.convert.onnx.ops.reshape import flattened
from edgeloop.convert.onnx.value import Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def along_one_axis(function: Callable) -> Callable[..., Value]:
    """Softmax and its kind (ONNX 13: along `axis`, by default the last; 1, 11: of everything from `axis` on)."""

    def op(n: Node, x: Value) -> Value:
        axis = n.attr("axis", -1 if n.opset >= 13 else 1) % x.rank
        if n.opset < 13 and any(d != 1 for d in x.dims[axis + 1 :]):
            t = x.onnx()
            flat = function(flattened(x, axis).onnx())
            return Value(tf.reshape(flat, shape_of([size(t, i) for i in range(x.rank)])), x.dtype)
        t, perm = with_axis_last(x, axis)
        return Value(function(t), x.dtype, perm)

    return op


def hardmax(t: Any) -> Any:
    """1 where the first of the largest elements of the last axis is, 0 elsewhere."""
    first = tf.expand_dims(tf.argmax(t, -1, tf.int32), -1)
    return tf.cast(tf.equal(tf.range(size(t, t.shape.rank - 1)), first), t.dtype)


OPS = {
    "Hardmax": along_one_axis(hardmax),
    "LogSoftmax": along_one_axis(tf.nn.log_softmax),
    "Softmax": along_one_axis(tf.nn.softmax),
}
