"""Comparisons, and arithmetic of what is true or false."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.elementwise import nary, unary
from edgeloop.convert.onnx.value import Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LARGEST = 3.4028235e38  # of float32


def is_inf(n: Node, x: Value) -> Value:
    """IsInf (ONNX 10, 20): what is beyond float32; the converter turns an infinite constant into its largest number."""
    above, below = (n.attr(name, 1) for name in ("detect_positive", "detect_negative"))
    if above and below:
        return unary(lambda t: tf.abs(t) > LARGEST, np.bool_)(n, x)
    if above:
        return unary(lambda t: t > LARGEST, np.bool_)(n, x)
    return unary(lambda t: t < -LARGEST if below else tf.zeros_like(t, tf.bool), np.bool_)(n, x)


def where(n: Node | None, condition: Value, a: Value, b: Value) -> Value:
    """Where (ONNX 9, 16)."""
    return nary(tf.where, a.dtype)(None, condition, a, b)


OPS: dict[str, Callable[..., Any]] = {
    "And": nary(tf.logical_and),
    "Equal": nary(tf.equal, np.bool_),
    "Greater": nary(tf.greater, np.bool_),
    "GreaterOrEqual": nary(tf.greater_equal, np.bool_),
    "IsInf": is_inf,
    "IsNaN": unary(lambda t: tf.not_equal(t, t), np.bool_),
    "Less": nary(tf.less, np.bool_),
    "LessOrEqual": nary(tf.less_equal, np.bool_),
    "Not": unary(tf.logical_not),
    "Or": nary(tf.logical_or),
    "Where": where,
    "Xor": nary(tf.math.logical_xor),
}
