"""Operators of com.microsoft that ONNX Runtime's quantizers write: quantized arithmetic, weights in blocks.

Sources
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md (version 1 of each)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, mul
from edgeloop.convert.onnx.ops.elementwise import scalar, unary
from edgeloop.convert.onnx.ops.joining import joined
from edgeloop.convert.onnx.ops.matmul import gemm, matmul
from edgeloop.convert.onnx.ops.pooling import average_pool
from edgeloop.convert.onnx.ops.quantized import (
    as_quantized,
    dequantize,
    dynamic_quantize,
    per_axis,
    product,
    quantize,
    real_number,
    real_of,
    rounded,
    shifted,
)
from edgeloop.convert.onnx.ops.reductions import mean, reduced, with_axis_last
from edgeloop.convert.onnx.value import Unsupported, Value, channels_last, relabelled
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Function = Callable[..., Value]


def requantized(n: Node, real: Value, scale: Value, zero: Value | None) -> Value:
    """Real numbers as quantized ones; without a zero, of uint8 and 0."""
    dtype = zero.dtype if zero is not None else np.dtype(np.uint8)
    return as_quantized(real, scale, zero, dtype, lambda: rounded(n, real, scale, zero, dtype))


def of_one(function: Function) -> Callable[..., Value]:
    """`function(node, real numbers)` between a quantized input and a quantized output."""

    def op(n: Node, x: Value, sx: Value, zx: Value | None, sy: Value, zy: Value | None = None) -> Value:
        return requantized(n, function(n, real_of(x, sx, zx, 0)), sy, zy)

    return op


def of_two(function: Function) -> Callable[..., Value]:
    """QLinearAdd, QLinearMul: `function` of the real numbers of two quantized inputs that broadcast."""

    def op(
        n: Node, a: Value, sa: Value, za: Value | None, b: Value, sb: Value, zb: Value | None, s: Value,
        z: Value | None = None,
    ) -> Value:  # fmt: skip
        return requantized(n, function(None, real_of(a, sa, za, 0), real_of(b, sb, zb, 0)), s, z)

    return op


def qlinear_concat(n: Node, s: Value, z: Value, *triples: Value) -> Value:
    """QLinearConcat: every input has a scale and a zero of its own."""
    reals = [real_of(triples[i], triples[i + 1], triples[i + 2], 0) for i in range(0, len(triples), 3)]
    return requantized(n, joined(reals, n.attr("axis")), s, z)


def average(n: Node, x: Value) -> Value:
    """QLinearAveragePool, of real numbers."""
    if not n.attr("channels_last", 0):
        return average_pool(n, x)
    rank = x.rank
    return relabelled(average_pool(n, relabelled(x, [0, rank - 1, *range(1, rank - 1)])), channels_last(rank))


def global_average(n: Node, x: Value) -> Value:
    """QLinearGlobalAveragePool, of real numbers."""
    return reduced(x, mean, list(range(1, x.rank - 1) if n.attr("channels_last", 0) else range(2, x.rank)))


def leaky_relu(n: Node, x: Value) -> Value:
    """QLinearLeakyRelu, of real numbers."""
    return unary(lambda t: tf.nn.leaky_relu(t, n.attr("alpha", 0.01)))(n, x)


def softmax(n: Node, x: Value) -> Value:
    """QLinearSoftmax, of real numbers: as Softmax of the version in `opset`."""
    if n.attr("opset", 13) < 13 and n.attr("axis", -1) % x.rank != x.rank - 1:
        raise Unsupported("QLinearSoftmax over several axes")
    t, perm = with_axis_last(x, n.attr("axis", -1) % x.rank)
    return Value(tf.nn.softmax(t), x.dtype, perm)


def quantized_gemm(
    n: Node, a: Value, sa: Value, za: Value, b: Value, sb: Value, zb: Value, c: Value | None = None,
    s: Value | None = None, z: Value | None = None,
) -> Value:  # fmt: skip
    """QGemm. The bias counts steps of alpha and both scales; without an output scale the result is float32."""
    axis = 0 if n.attr("transB", 0) else 1
    steps = product(per_axis(sa, 1, 0), per_axis(sb, 1, 0))
    steps = product(steps, scalar(n.attr("alpha", 1.0)))
    bias = None if c is None else product(real_number(c), steps)
    real = gemm(n, real_of(a, sa, za, 0), real_of(b, sb, zb, axis), bias)
    return real if s is None else requantized(n, real, s, z)


def matmul_integer_to_float(
    n: Node, a: Value, b: Value, sa: Value, sb: Value, za: Value | None = None, zb: Value | None = None,
    bias: Value | None = None,
) -> Value:  # fmt: skip
    """MatMulIntegerToFloat."""
    y = matmul(None, shifted(a, za, -2), shifted(b, zb, -1))
    y = mul(None, y, mul(None, per_axis(sa, y.rank, -2), per_axis(sb, y.rank, -1)))
    return y if bias is None else add(None, y, bias)


def dynamic_quantize_matmul(
    n: Node, a: Value, b: Value, sb: Value, zb: Value | None = None, bias: Value | None = None
) -> Value:
    """DynamicQuantizeMatMul."""
    whole, scale, zero = dynamic_quantize(n, a)
    return matmul_integer_to_float(n, whole, b, scale, sb, zero, zb, bias)


def matmul_of_few_bits(
    n: Node, a: Value, b: Value, scales: Value, zeros: Value | None = None, groups: Value | None = None,
    bias: Value | None = None,
) -> Value:  # fmt: skip
    """MatMulNBits: weights of 2, 4 or 8 bits in blocks along the summed axis, made real while importing.

    Raises:
        Unsupported: Weights that are computed, or rows in another order.
    """
    if groups is not None or b.const is None or scales.const is None or (zeros is not None and zeros.const is None):
        raise Unsupported("weights in blocks that are computed or in another order")
    k, columns, bits, width = n.attr("K"), n.attr("N"), n.attr("bits", 4), n.attr("block_size")
    blocks = -(-k // width)
    values = unpacked(b.const, bits, columns, blocks * width).astype(np.float32)
    if zeros is None:
        shift = np.full((columns, blocks), 2 ** (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        shift = unpacked(zeros.const, bits, columns, blocks).astype(np.float32)
    else:
        shift = np.asarray(zeros.const, np.float32).reshape(columns, blocks)
    steps = scales.const.astype(np.float32).reshape(columns, blocks)
    real = ((values.reshape(columns, blocks, width) - shift[..., None]) * steps[..., None]).reshape(columns, -1)[:, :k]
    y = matmul(None, a, Value(const=np.ascontiguousarray(real.T)))
    return y if bias is None else add(None, y, bias)


def unpacked(packed: Any, bits: int, rows: int, count: int) -> np.ndarray:
    """[rows, count] numbers out of bytes that hold the lowest bits first; every row begins with a new byte."""
    raw = np.asarray(packed, np.uint8).reshape(rows, -1, 1)
    numbers = (raw >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8(2**bits - 1)
    return numbers.reshape(rows, -1)[:, :count]


MICROSOFT: dict[str, Callable[..., Any]] = {
    "DequantizeLinear": dequantize,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "MatMulNBits": matmul_of_few_bits,
    "QGemm": quantized_gemm,
    "QLinearAdd": of_two(add),
    "QLinearAveragePool": of_one(average),
    "QLinearConcat": qlinear_concat,
    "QLinearGlobalAveragePool": of_one(global_average),
    "QLinearLeakyRelu": of_one(leaky_relu),
    "QLinearMul": of_two(mul),
    "QLinearSigmoid": of_one(unary(tf.sigmoid)),
    "QLinearSoftmax": of_one(softmax),
    "QuantizeLinear": quantize,
}
OPS: dict[str, Callable[..., Any]] = {f"com.microsoft.{name}": function for name, function in MICROSOFT.items()}
