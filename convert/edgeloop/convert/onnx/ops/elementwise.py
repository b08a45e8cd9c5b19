"""Operators that compute element by element, in whatever order of axes their inputs lie; functions of one tensor.

LiteRT has no kernel for the inverse functions but ATAN2, none for the hyperbolic ones but TANH, and no ERF: they are
computed from what there is. Largest errors against float64, relative to the largest value, on 100,000 numbers of -9 to
9 (within the domain): erf 4.5e-7, the others below 3e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import Value, narrowed, unsqueezed
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

SMALL_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int4", "uint4"})
# erf(x) = x * P(x^2) / Q(x^2) for |x| < 4, fitted with weights that favour what float32 rounds
ERF_P = (1.12837914, 0.193546206, 0.053101878, 0.00388338227, 0.000284564878, 1.98675224e-06)
ERF_Q = (1.0, 0.504858416, 0.115350453, 0.0152073369, 0.00118557646, 3.74198021e-05)


def align(values: Sequence[Value]) -> tuple[list[Any], tuple[int, ...]]:
    """The tensors in one common order of axes, ready to broadcast, and that order."""
    rank = max(v.rank for v in values)
    cost: dict[tuple[int, ...], int] = {}
    for v in values:
        if v.rank == rank and v.const is None:
            cost[v.perm] = cost.get(v.perm, 0) + math.prod(d or 64 for d in v.dims)
    perm = max(cost, key=cost.__getitem__) if cost else tuple(range(rank))  # the bulk of the elements stays in place
    return [lifted(v, rank, perm) for v in values], perm


def lifted(v: Value, rank: int, perm: tuple[int, ...]) -> Any:
    """A tensor in the order `perm` of `rank` axes; ones stand before a shorter shape where broadcasting adds none."""
    if v.rank == 0 or perm == tuple(range(rank)):
        return v.onnx()
    if v.const is not None:
        if v.const.size == 1:
            return tf.constant(narrowed(v.const).reshape([1] * (rank if v.rank == rank else 0)))
        return Value(const=v.const.reshape([1] * (rank - v.rank) + list(v.const.shape))).to(perm)
    if v.rank < rank:
        v = unsqueezed(v, list(range(rank - v.rank)))
    return v.to(perm)


def nary(function: Callable[..., Any], dtype: Any = None, wraps: bool = False) -> Callable[..., Value]:
    """An operator of several inputs that broadcast.

    Args:
        dtype: Of the result, where that is not the first input's.
        wraps: Whether results may go beyond 8 and 16 bits, and wrap around.
    """

    def op(n: Node | None, *values: Value) -> Value:
        if n is not None and n.opset < 7 and n.attr("broadcast") and values[1].rank:  # the old way to say where
            axis = n.attr("axis", values[0].rank - values[1].rank)
            after = values[0].rank - axis - values[1].rank
            values = (values[0], unsqueezed(values[1], list(range(values[1].rank, values[1].rank + after))))
        tensors, perm = align(values)
        result = function(*tensors)
        return Value(wrapped(result, values[0].dtype) if wraps else result, dtype or values[0].dtype, perm)

    return op


def unary(function: Callable[..., Any], dtype: Any = None, wraps: bool = False) -> Callable[..., Value]:
    """An operator of one input, e.g. `unary(tf.abs)`; `dtype` and `wraps` as for `nary`."""

    def op(n: Node | None, x: Value, *_: Any) -> Value:
        result = function(x.raw())
        return Value(wrapped(result, x.dtype) if wraps else result, dtype or x.dtype, x.perm)

    return op


def variadic(function: Callable[..., Any]) -> Callable[..., Value]:
    """An operator of any number of inputs, two at a time."""

    def op(n: Node | None, *values: Value) -> Value:
        total = values[0]
        for value in values[1:]:
            total = nary(function)(None, total, value)
        return total

    return op


def with_attributes(function: Callable[..., Any], **defaults: float) -> Callable[..., Value]:
    """An operator of one input whose attributes are arguments of `function`."""

    def op(n: Node, x: Value) -> Value:
        values = {name: n.attr(name, default) for name, default in defaults.items()}
        return Value(function(x.raw(), **values), x.dtype, x.perm)

    return op


def scalar(value: float) -> Value:
    """A constant float32 number."""
    return Value(const=np.float32(value))


def wrapped(tensor: Any, dtype: np.dtype) -> Any:
    """What ONNX's 8 and 16 bit arithmetic leaves of numbers that are computed in 32 bits, which wrap by themselves."""
    if dtype.name not in SMALL_INTEGERS:
        return tensor
    bits = int(dtype.name.lstrip("uint"))
    low = 0 if dtype.name.startswith("u") else -(1 << bits - 1)
    return tf.math.floormod(tensor - low, 1 << bits) + low


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """For functions whose kernels take no whole numbers: exact up to 2^24."""

    def computed(t: Any) -> Any:
        return function(t) if t.dtype.is_floating else tf.cast(function(tf.cast(t, tf.float32)), t.dtype)

    return computed


def erf(t: Any) -> Any:
    """Erf (ONNX 9, 13), where it is not part of a Gelu."""
    t = tf.clip_by_value(t, -4.0, 4.0)
    square = t * t
    p, q = (tf.constant(c[-1], tf.float32) for c in (ERF_P, ERF_Q))
    for c in reversed(ERF_P[:-1]):
        p = p * square + c
    for c in reversed(ERF_Q[:-1]):
        q = q * square + c
    return tf.clip_by_value(t * p / q, -1.0, 1.0)


def atan(t: Any) -> Any:
    """Atan (ONNX 7, 22)."""
    return tf.atan2(t, tf.ones_like(t))


def asin(t: Any) -> Any:
    """Asin (ONNX 7, 22): the cosine as a product, which is exact where 1 - t^2 cancels."""
    return tf.atan2(t, tf.sqrt((1.0 - t) * (1.0 + t)))


def acos(t: Any) -> Any:
    """Acos (ONNX 7, 22)."""
    return tf.atan2(tf.sqrt((1.0 - t) * (1.0 + t)), t)


def asinh(t: Any) -> Any:
    """Asinh (ONNX 9, 22)."""
    return tf.sign(t) * tf.math.log(tf.abs(t) + tf.sqrt(t * t + 1.0))


def acosh(t: Any) -> Any:
    """Acosh (ONNX 9, 22)."""
    return tf.math.log(t + tf.sqrt(t * t - 1.0))


def atanh(t: Any) -> Any:
    """Atanh (ONNX 9, 22)."""
    return 0.5 * tf.math.log((1.0 + t) / (1.0 - t))


def sinh(t: Any) -> Any:
    """Sinh (ONNX 9, 22)."""
    return 0.5 * (tf.exp(t) - tf.exp(-t))


def cosh(t: Any) -> Any:
    """Cosh (ONNX 9, 22)."""
    return 0.5 * (tf.exp(t) + tf.exp(-t))


OPS: dict[str, Callable[..., Any]] = {
    "Abs": unary(tf.abs, wraps=True),
    "Acos": unary(acos),
    "Acosh": unary(acosh),
    "Asin": unary(asin),
    "Asinh": unary(asinh),
    "Atan": unary(atan),
    "Atanh": unary(atanh),
    "Ceil": unary(tf.math.ceil),
    "Cos": unary(tf.cos),
    "Cosh": unary(cosh),
    "Erf": unary(erf),
    "Exp": unary(tf.exp),
    "Floor": unary(tf.floor),
    "Log": unary(tf.math.log),
    "Neg": unary(tf.negative, wraps=True),
    "Reciprocal": unary(lambda t: 1.0 / t),
    "Round": unary(tf.round),
    "Sign": unary(in_float32(tf.sign)),
    "Sin": unary(tf.sin),
    "Sinh": unary(sinh),
    "Sqrt": unary(tf.sqrt),
    "Tan": unary(lambda t: tf.sin(t) / tf.cos(t)),
    "Tanh": unary(tf.tanh),
}
