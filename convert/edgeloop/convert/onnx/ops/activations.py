"""Activations, written as the patterns that become operators of LiteRT, or that it fuses with what is before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, mul
from edgeloop.convert.onnx.ops.elementwise import nary, unary, with_attributes
from edgeloop.convert.onnx.value import Value, per_channel
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LARGEST = 3.4e38  # of float32, nearly: bounds that exporters write as infinity or float64's largest


def softplus(t: Any) -> Any:
    """Softplus (ONNX 1, 22), without overflow."""
    return tf.maximum(t, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(t)))


def relu(t: Any) -> Any:
    """Relu (ONNX 6, 13, 14)."""
    return tf.nn.relu(t) if t.dtype.is_floating else tf.maximum(t, 0)


def elu(t: Any, alpha: float = 1.0) -> Any:
    """Elu (ONNX 6, 22)."""
    return tf.nn.elu(t) if alpha == 1 else tf.where(t > 0, t, alpha * (tf.exp(tf.minimum(t, 0.0)) - 1.0))


def selu(t: Any, alpha: float, gamma: float) -> Any:
    """Selu (ONNX 6, 22)."""
    return gamma * tf.where(t > 0, t, alpha * (tf.exp(tf.minimum(t, 0.0)) - 1.0))


def celu(t: Any, alpha: float) -> Any:
    """Celu (ONNX 12)."""
    return tf.maximum(t, 0.0) + tf.minimum(0.0, alpha * (tf.exp(tf.minimum(t, 0.0) / alpha) - 1.0))


def shrink(t: Any, lambd: float, bias: float) -> Any:
    """Shrink (ONNX 9)."""
    whole, t = t.dtype if t.dtype.is_integer else None, tf.cast(t, tf.float32)
    result = tf.where(t < -lambd, t + bias, tf.where(t > lambd, t - bias, tf.zeros_like(t)))
    return result if whole is None else tf.cast(result, whole)


def thresholded_relu(t: Any, alpha: float) -> Any:
    """ThresholdedRelu (ONNX 10, 22)."""
    return tf.where(t > alpha, t, tf.zeros_like(t))


def gelu(n: Node, x: Value) -> Value:
    """Gelu (ONNX 20): LiteRT's GELU, exact or by tanh."""
    return unary(lambda t: tf.nn.gelu(t, approximate=n.attr("approximate", "none") == "tanh"))(n, x)


def swish(n: Node, x: Value) -> Value:
    """Swish (ONNX 24)."""
    alpha = n.attr("alpha", 1.0)
    return unary(lambda t: t * tf.sigmoid(t if alpha == 1 else t * alpha))(n, x)


def swiglu(n: Node, gate: Value, x: Value) -> Value:
    """SwiGLU (ONNX 28)."""
    return mul(None, swish(n, gate), x)


def clip(n: Node, x: Value, *_: Any) -> Value:
    """Clip (ONNX 6, 11, 12, 13): bounds are attributes before opset 11. Where they cross, the upper one counts.

    Clip(0, 6) is RELU6, which LiteRT fuses with the convolution before it.
    """
    low, high = (_bound(n, x, i, name) for i, name in ((1, "min"), (2, "max")))
    if x.dtype.kind == "f" and _is(low, 0) and _is(high, 6):
        return Value(tf.nn.relu6(x.raw()), x.dtype, x.perm)
    result = x if low is None else nary(tf.maximum)(None, x, low)
    return result if high is None else nary(tf.minimum)(None, result, high)


def _bound(n: Node, x: Value, i: int, name: str) -> Value | None:
    bound = n.given(i)
    if bound is None and n.attr(name) is not None:
        bound = Value(const=np.asarray(n.attr(name), np.float32))
    if bound is None or bound.const is None or x.dtype.kind not in "fV":
        return bound
    return Value(const=np.clip(bound.const.astype(np.float64), -LARGEST, LARGEST).astype(np.float32).reshape([]))


def _is(bound: Value | None, value: float) -> bool:
    return bound is not None and bound.const is not None and bound.const.item() == value


def hard_sigmoid(n: Node, x: Value) -> Value:
    """HardSigmoid (ONNX 6, 22). With MobileNet's 1/6 and 1/2 it is RELU6, and times its input LiteRT's HARD_SWISH."""
    alpha, beta = n.attr("alpha", 0.2), n.attr("beta", 0.5)
    if abs(alpha * 6 - 1) < 1e-6 and beta == 0.5:
        return unary(lambda t: tf.nn.relu6(t + 3.0) * (1.0 / 6))(n, x)
    return unary(lambda t: tf.clip_by_value(t * alpha + beta, 0.0, 1.0))(n, x)


def hard_swish(n: Node, x: Value) -> Value:
    """HardSwish (ONNX 14, 22)."""
    return unary(lambda t: t * tf.nn.relu6(t + 3.0) * (1.0 / 6))(n, x)


def prelu(n: Node, x: Value, slope: Value) -> Value:
    """PRelu (ONNX 6, 7, 9, 16): before opset 7 a vector is one slope a channel, later it broadcasts from the right.

    Constant slopes become LiteRT's LEAKY_RELU or PRELU, whose slopes have no batch axis.
    """
    if n.opset < 7 and slope.rank == 1 and slope.dims[0] != 1:
        slope = per_channel(slope, x.rank)
    t = x.raw()
    if slope.const is None or not t.dtype.is_floating or slope.rank > x.rank or x.rank > 4:  # which PRELU ends at
        below = unary(lambda t: tf.minimum(t, tf.zeros([], t.dtype)))(n, x)
        return add(None, unary(relu)(n, x), mul(None, slope, below))
    slopes = slope.const.astype(np.float32)
    if slopes.size == 1:
        return Value(tf.nn.leaky_relu(t, slopes.item()), x.dtype, x.perm)
    slopes = slopes.reshape([1] * (x.rank - slope.rank) + list(slopes.shape)).transpose(x.perm)
    slopes = slopes[0] if slopes.shape[0] == 1 else slopes
    return Value(tf.nn.relu(t) + (-tf.constant(slopes)) * tf.nn.relu(-t), x.dtype, x.perm)


OPS: dict[str, Callable[..., Any]] = {
    "Celu": with_attributes(celu, alpha=1.0),
    "Clip": clip,
    "Elu": with_attributes(elu, alpha=1.0),
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "LeakyRelu": with_attributes(tf.nn.leaky_relu, alpha=0.01),
    "Mish": unary(lambda t: t * tf.tanh(softplus(t))),
    "PRelu": prelu,
    "Relu": unary(relu),
    "Selu": with_attributes(selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "Shrink": with_attributes(shrink, lambd=0.5, bias=0.0),
    "Sigmoid": unary(tf.sigmoid),
    "Softplus": unary(softplus),
    "Softsign": unary(lambda t: t / (1.0 + tf.abs(t))),
    "SwiGLU": swiglu,
    "Swish": swish,
    "ThresholdedRelu": with_attributes(thresholded_relu, alpha=1.0),
}
