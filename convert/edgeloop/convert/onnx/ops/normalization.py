"""Operators that normalise: by batch, by instance, by layer, by group, by root mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, div, mul, sub
from edgeloop.convert.onnx.ops.elementwise import unary
from edgeloop.convert.onnx.ops.padding import padded
from edgeloop.convert.onnx.ops.reductions import lp_norm, mean, reduced
from edgeloop.convert.onnx.ops.reshape import reshaped
from edgeloop.convert.onnx.value import Unsupported, Value, channels_last, per_channel, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def batch_normalization(n: Node, x: Value, gamma: Value, beta: Value, middle: Value, variance: Value) -> Value:
    """BatchNormalization (ONNX 7, 9, 14, 15): one factor and one shift a channel, computed now in float64.

    Raises:
        Unsupported: training_mode.
    """
    if n.attr("training_mode", 0):
        raise Unsupported("a BatchNormalization that trains")
    epsilon = n.attr("epsilon", 1e-5)
    if all(v.const is not None for v in (gamma, beta, middle, variance)):
        g, b, m, v = (a.const.astype(np.float64) for a in (gamma, beta, middle, variance))  # type: ignore[union-attr]
        scale = g / np.sqrt(v + epsilon)
        factor, shift = (Value(const=a.astype(np.float32)) for a in (scale, b - m * scale))
    else:
        factor = Value(gamma.onnx() * tf.math.rsqrt(variance.onnx() + epsilon), x.dtype)
        shift = sub(None, beta, mul(None, middle, factor))
    return add(None, mul(None, x, per_channel(factor, x.rank)), per_channel(shift, x.rank))


def normalised(x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """Less the mean and by the standard deviation over `axes`; the mean; one by the deviation."""
    middle = reduced(x, mean, axes)
    off = sub(None, x, middle)
    by = unary(lambda t: tf.math.rsqrt(t + epsilon))(None, reduced(mul(None, off, off), mean, axes))
    return mul(None, off, by), middle, by


def instance_normalization(n: Node, x: Value, gamma: Value, beta: Value) -> Value:
    """InstanceNormalization (ONNX 1, 6, 22)."""
    y = normalised(x, range(2, x.rank), n.attr("epsilon", 1e-5))[0]
    return add(None, mul(None, y, per_channel(gamma, x.rank)), per_channel(beta, x.rank))


def layer_normalization(n: Node, x: Value, gamma: Value, beta: Value | None = None) -> tuple[Value, Value, Value]:
    """LayerNormalization (ONNX 17): over `axis` and all behind it; also the mean, and one by the deviation."""
    y, middle, by = normalised(x, range(n.attr("axis", -1) % x.rank, x.rank), n.attr("epsilon", 1e-5))
    y = mul(None, y, gamma)
    return (y if beta is None else add(None, y, beta)), middle, by


def rms_normalization(n: Node, x: Value, gamma: Value) -> Value:
    """RMSNormalization (ONNX 23): by the root of the mean square over `axis` and all behind it."""
    axes, epsilon = range(n.attr("axis", -1) % x.rank, x.rank), n.attr("epsilon", 1e-5)
    by = unary(lambda t: tf.math.rsqrt(t + epsilon))(None, reduced(mul(None, x, x), mean, axes))
    return mul(None, mul(None, x, by), gamma)


def group_normalization(n: Node, x: Value, gamma: Value, beta: Value) -> Value:
    """GroupNormalization (ONNX 21: scale and bias a channel; 18: a group).

    Channels last, [..., C] becomes [..., groups, C / groups], so a net that lies channels last needs no TRANSPOSE.
    """
    groups, channels, rank = n.attr("num_groups"), x.dims[1], x.rank
    if channels is None:
        raise Unsupported("GroupNormalization of a free number of channels")
    split = [0, groups, channels // groups, *range(3, rank + 1)]
    sizes = [d if d is not None else size(x.raw(), x.perm.index(a)) for a, d in enumerate(x.dims)]
    x5 = reshaped(x, [sizes[0], *split[1:3], *sizes[2:]], _grouped_symbols(x, groups))
    y = normalised(x5, range(2, x5.rank), n.attr("epsilon", 1e-5))[0]
    if n.opset < 21:
        y = add(None, mul(None, y, per_channel(gamma, x5.rank)), per_channel(beta, x5.rank))
    y = reshaped(y, sizes, x.symbols())
    if n.opset < 21:
        return y
    return add(None, mul(None, y, per_channel(gamma, rank)), per_channel(beta, rank))


def _grouped_symbols(x: Value, groups: int) -> list[tuple[int, int]]:
    batch, channels, *inner = x.symbols()
    each = channels[0] // groups
    return [batch, (groups, groups), (each, each), *inner]


def mean_variance_normalization(n: Node, x: Value) -> Value:
    """MeanVarianceNormalization (ONNX 9, 13): the deviation plus 1e-9, as the operator's function body has it."""
    axes = n.attr("axes", [0, 2, 3])
    off = sub(None, x, reduced(x, mean, axes))
    return div(None, off, unary(lambda t: tf.sqrt(t) + 1e-9)(None, reduced(mul(None, off, off), mean, axes)))


def local_response_normalization(n: Node, x: Value) -> Value:
    """LRN (ONNX 1, 13): a window of `size` channels, the longer half behind; LiteRT's kernel has odd sizes alone."""
    count, alpha, beta, bias = n.attr("size"), n.attr("alpha", 1e-4), n.attr("beta", 0.75), n.attr("bias", 1.0)
    t, channels = x.last(), x.dims[1]
    if channels is None:
        raise Unsupported("LRN of a free number of channels")
    squares = padded(t * t, [(0, 0)] * (x.rank - 1) + [((count - 1) // 2, count // 2)])
    total = sum(squares[..., i : i + channels] for i in range(count))
    return Value(t / tf.pow(bias + total * (alpha / count), beta), x.dtype, channels_last(x.rank))


def lp_normalization(n: Node, x: Value) -> Value:
    """LpNormalization (ONNX 1, 22): where the norm is 0 the elements stay."""
    axis, p = n.attr("axis", -1) % x.rank, n.attr("p", 2)
    length = reduced(x, lambda t, axes, keep: lp_norm(t, axes, keep, p), [axis])
    return div(None, x, unary(lambda t: tf.where(tf.equal(t, 0.0), tf.ones_like(t), t))(None, length))


OPS = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
}
