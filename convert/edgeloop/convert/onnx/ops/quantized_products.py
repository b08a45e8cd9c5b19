"""Products of quantized numbers: their whole sums, and quantized numbers again (QOperator models)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, div, mul
from edgeloop.convert.onnx.ops.convolution import conv
from edgeloop.convert.onnx.ops.matmul import matmul
from edgeloop.convert.onnx.ops.quantized import LIMITS, as_quantized, per_axis, product, real_number, real_of, shifted
from edgeloop.convert.onnx.value import Value, per_channel
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def whole(y: Value) -> Value:
    """int32 of float32 that hold whole numbers."""
    return Value(tf.cast(tf.round(y.raw()), tf.int32), np.int32, y.perm)


def matmul_integer(n: Node, a: Value, b: Value, az: Value | None = None, bz: Value | None = None) -> Value:
    """MatMulInteger (ONNX 10)."""
    return whole(matmul(None, shifted(a, az, -2), shifted(b, bz, -1)))


def conv_integer(n: Node, x: Value, w: Value, xz: Value | None = None, wz: Value | None = None) -> Value:
    """ConvInteger (ONNX 10)."""
    return whole(conv(n, shifted(x, xz, 1), shifted(w, wz, 0)))


def requantized(y: Value, factors: tuple[Value, Value, Value], zero: Value, axis: int) -> Value:
    """Sums of products of whole numbers times (scale * scale / scale), as quantized numbers."""
    left, right, out = (per_axis(v, y.rank, axis) for v in factors)
    real = mul(None, y, div(None, mul(None, left, right), out))
    low, high = LIMITS[zero.dtype.name]
    t = add(None, Value(tf.round(real.raw()), np.float32, real.perm), per_axis(zero, y.rank, axis))
    return Value(tf.cast(tf.clip_by_value(t.raw(), float(low), float(high)), tf.int32), zero.dtype, t.perm)


def qlinear_matmul(
    n: Node, a: Value, sa: Value, za: Value, b: Value, sb: Value, zb: Value, s: Value, z: Value
) -> Value:
    """QLinearMatMul (ONNX 10, 21)."""

    def numbers() -> Value:
        return requantized(matmul(None, shifted(a, za, -2), shifted(b, zb, -1)), (sa, sb, s), z, -1)

    return as_quantized(matmul(None, real_of(a, sa, za, -2), real_of(b, sb, zb, -1)), s, z, z.dtype, numbers)


def qlinear_conv(
    n: Node, x: Value, sx: Value, zx: Value, w: Value, sw: Value, zw: Value, s: Value, z: Value, b: Value | None = None
) -> Value:
    """QLinearConv (ONNX 10). The bias counts steps of the input's scale times the weights'."""

    def numbers() -> Value:
        y = conv(n, shifted(x, zx, 1), shifted(w, zw, 0))
        y = y if b is None else add(None, y, per_channel(real_number(b), x.rank))
        return requantized(y, (sx, sw, s), z, 1)

    bias = None if b is None else product(real_number(b), product(per_axis(sx, 1, 0), per_axis(sw, 1, 0)))
    real = conv(n, real_of(x, sx, zx, 1), real_of(w, sw, zw, 0), bias)
    return as_quantized(real, s, z, z.dtype, numbers)


OPS: dict[str, Callable[..., Any]] = {
    "ConvInteger": conv_integer,
    "MatMulInteger": matmul_integer,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
}
