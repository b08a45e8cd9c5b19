"""Matrix products. LiteRT's kernels take float32; products of whole numbers are sums of products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, mul
from edgeloop.convert.onnx.ops.elementwise import scalar, wrapped
from edgeloop.convert.onnx.value import Value, unsqueezed
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def product(a: Any, b: Any, turned: tuple[bool, bool] = (False, False)) -> Any:
    """The matrix product of two tensors over their last two axes; `turned` says which of them are transposed there."""
    if a.dtype.is_floating:
        return tf.matmul(a, b, transpose_a=turned[0], transpose_b=turned[1])
    a, b = (tf.linalg.matrix_transpose(t) if turn else t for t, turn in zip((a, b), turned, strict=True))
    return sum_of_products(a, b)


def sum_of_products(a: Any, b: Any) -> Any:
    """The matrix product without a kernel for it, exact in whole numbers."""
    return tf.reduce_sum(a[..., :, :, None] * b[..., None, :, :], -2)


def matmul(n: Node | None, a: Value, b: Value) -> Value:
    """MatMul (ONNX 1, 9, 13): NumPy's. A side whose last two axes lie the other way round is not turned back."""
    if a.rank == 1 or b.rank == 1:
        left, right = (unsqueezed(a, [0]) if a.rank == 1 else a), (unsqueezed(b, [1]) if b.rank == 1 else b)
        # the converter fails on a row that was a vector times a matrix that is computed
        function = sum_of_products if a.rank == 1 and b.const is None else product
        t = tf.squeeze(function(left.onnx(), right.onnx()), [-2] * (a.rank == 1) + [-1] * (b.rank == 1))
        return Value(wrapped(t, a.dtype), a.dtype)
    sides, turned = [], []
    for v in (a, b):
        plain = tuple(range(v.rank))
        swapped = (*plain[:-2], plain[-1], plain[-2])
        turn = v.const is None and v.perm == swapped and v.rank > 2
        sides.append(v.to(swapped if turn else plain))
        turned.append(turn)
    return Value(wrapped(product(sides[0], sides[1], (turned[0], turned[1])), a.dtype), a.dtype)


def gemm(n: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """Gemm (ONNX 7, 9, 11, 13): factors go into constants; a constant row becomes the bias of FULLY_CONNECTED."""
    b = _times(b, n.attr("alpha", 1.0))
    left = a.to((1, 0)) if n.attr("transA", 0) else a.onnx()
    right = b.to((1, 0)) if n.attr("transB", 0) else b.onnx()
    y = Value(product(left, right), a.dtype)
    if c is None:
        return y
    c = _times(c, n.attr("beta", 1.0))
    if c.const is not None and c.rank == 2 and c.dims[0] == 1 and a.dims[0] != 0:
        c = Value(const=c.const[0])
    return add(None, y, c)


def _times(v: Value, factor: float) -> Value:
    if factor == 1:
        return v
    if v.const is not None:
        return Value(const=(v.const * np.asarray(factor)).astype(v.dtype))
    return mul(None, v, scalar(factor) if v.dtype.kind == "f" else Value(const=np.asarray(factor).astype(v.dtype)))


OPS: dict[str, Callable[..., Any]] = {"Gemm": gemm, "MatMul": matmul}
