"""Activations whose gradients lower to builtin TFLite ops. `ACTIVATIONS` maps Keras's functions to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
keras: Any = need("keras", extra="convert")

Tensor = Any


@tf.custom_gradient
def relu(x: Tensor) -> Any:
    """max(x, 0). Written as a product: after `matmul(x, variable)` the converter silently drops a real RELU."""
    mask = tf.cast(x > 0.0, x.dtype)
    return x * mask, lambda dy: dy * mask


@tf.custom_gradient
def relu6(x: Tensor) -> Any:
    """min(max(x, 0), 6)."""
    above, below = tf.cast(x > 0.0, x.dtype), tf.cast(x < 6.0, x.dtype)
    return x * above * below + 6.0 * (1.0 - below), lambda dy: dy * above * below


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x where positive, `slope` * x elsewhere; 0.2 is what Keras's activation of that name has."""

    @tf.custom_gradient
    def bent(x: Tensor) -> Any:
        factor = slope + (1.0 - slope) * tf.cast(x > 0.0, x.dtype)
        return x * factor, lambda dy: dy * factor

    return bent(x)


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
    A.gelu: gelu,
    A.sigmoid: tf.sigmoid,
    A.tanh: tf.tanh,
    A.softmax: tf.nn.softmax,
}
