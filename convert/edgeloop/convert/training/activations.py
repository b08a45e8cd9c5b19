"""Activations whose gradients lower to builtin TFLite ops. `ACTIVATIONS` maps Keras's functions to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
keras: Any = need("keras", extra="convert")

Tensor = Any


def above(x: Tensor, bound: float = 0.0) -> Tensor:
    """1 where x > `bound`, else 0; no gradient passes it. Between 0 and 6e-38 above it, a number between them.

    A product and its clamp are one operator that XNNPACK takes. GREATER and CAST are not among those; SELECT, ABS and
    MAXIMUM have gradients that need Flex.
    """
    beyond = x + (-bound) if bound else x
    return tf.stop_gradient(tf.nn.relu6(beyond * 1e38) * (1.0 / 6.0))  # 6 times the float of 1/6 is exactly 1


def positive(x: Tensor) -> Tensor:
    """As `above`, of x >= 0 alone: one operator less."""
    return tf.stop_gradient(tf.minimum(tf.maximum(x * 1e38, -1.0), 1.0))  # becomes RELU_N1_TO_1, part of the product


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """The gradient passes both bounds, as that of tf.clip_by_value."""
    over, under = above(x, high), above(-x, -low)
    return x * (1.0 - over - under) + high * over + low * under


def saturate(x: Tensor, high: float) -> Tensor:
    """min(max(x, 0), high). The gradient passes neither bound, as that of tf.nn.relu6."""
    below = above(-x, -high)
    return x * above(x) * below + high * (1.0 - below)


def absolute(x: Tensor) -> Tensor:
    return x * (above(x) - above(-x))


@tf.custom_gradient
def relu(x: Tensor) -> Any:
    """max(x, 0). Written as a product: after `matmul(x, variable)` the converter silently drops a real RELU."""
    mask = above(x)
    return x * mask, lambda dy: dy * mask


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return saturate(x, 6.0)


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x where positive, `slope` * x elsewhere; 0.2 is what Keras's activation of that name has."""
    return x * (slope + (1.0 - slope) * above(x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where positive, alpha * (exp(x) - 1) elsewhere (Clevert 2015, arXiv:1511.07289)."""
    positive = above(x)
    return x * positive + alpha * (tf.exp(x * (1.0 - positive)) - 1.0)


def selu(x: Tensor) -> Tensor:
    """Klambauer et al. 2017 (arXiv:1706.02515); the constants are the paper's. The slope at 0 is that above it."""
    negative = above(-x)
    return 1.0507009873554805 * (x * (1.0 - negative) + 1.6732632423543772 * (tf.exp(x * negative) - 1.0))


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    positive = above(x)
    return x * positive + alpha * (tf.exp(x * (1.0 - positive) / alpha) - 1.0)


@tf.custom_gradient
def softplus(x: Tensor) -> Any:
    """log(1 + exp(x)) without overflow."""
    return x * above(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x))), lambda dy: dy * tf.sigmoid(x)


def silu(x: Tensor) -> Tensor:
    return x * tf.sigmoid(x)


def hard_sigmoid(x: Tensor) -> Tensor:
    return relu6(x + 3.0) * (1.0 / 6.0)


def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    return x - clip(x, -threshold, threshold)


def hard_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    return x * (above(x, threshold) + above(-x, threshold))


def sparse_plus(x: Tensor) -> Tensor:
    """0 up to -1, (x + 1)^2 / 4 up to 1, x from there."""
    bent = clip(x, -1.0, 1.0)
    return 0.25 * tf.square(bent + 1.0) + (x - 1.0) * above(x, 1.0)


def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    return 0.5 * (x + tf.sqrt(tf.square(x) + b))


def glu(x: Tensor, axis: int = -1) -> Tensor:
    """The first half of an axis, by the sigmoid of the second."""
    value, gate = tf.split(x, 2, axis=axis)
    return value * tf.sigmoid(gate)


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of `gelu` by tanh (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@tf.custom_gradient
def gelu(x: Tensor) -> Any:
    """x times the normal distribution's cumulative function (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    below = 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
    density = tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return x * below, lambda dy: dy * (below + x * density)


# Eigen's generic_fast_erf_float: an odd rational function on [-4, 4]; ERF and ERFC exist only in Flex
# fmt: off
_ABOVE = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
          -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)
_BELOW = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
          -1.42647390514189e-02)
# fmt: on


def erf(x: Tensor) -> Tensor:
    """The error function, within 4e-7; its own gradient is not meant to be taken."""
    x = tf.clip_by_value(x, -4.0, 4.0)
    square = x * x
    return x * _polynomial(square, _ABOVE) / _polynomial(square, _BELOW)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Horner's rule, the highest power's coefficient first."""
    value = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        value = value * x + c
    return value


A: Any = keras.activations
ACTIVATIONS: dict[Callable, Callable] = {
    A.linear: lambda x: x,
    A.relu: relu,
    A.relu6: relu6,
    A.leaky_relu: leaky_relu,
    A.elu: elu,
    A.selu: selu,
    A.celu: celu,
    A.gelu: gelu,
    A.silu: silu,
    A.hard_silu: lambda x: x * hard_sigmoid(x),
    A.mish: lambda x: x * tf.tanh(softplus(x)),
    A.softplus: softplus,
    A.log_sigmoid: lambda x: -softplus(-x),
    A.softsign: lambda x: x / (1.0 + absolute(x)),
    A.squareplus: squareplus,
    A.sparse_plus: sparse_plus,
    A.exponential: tf.exp,
    A.sigmoid: tf.sigmoid,
    A.hard_sigmoid: hard_sigmoid,
    A.sparse_sigmoid: lambda x: saturate(0.5 * x + 0.5, 1.0),
    A.tanh: tf.tanh,
    A.hard_tanh: lambda x: clip(x, -1.0, 1.0),
    A.tanh_shrink: lambda x: x - tf.tanh(x),
    A.soft_shrink: soft_shrink,
    A.hard_shrink: hard_shrink,
    A.softmax: tf.nn.softmax,
    A.log_softmax: tf.nn.log_softmax,
}
