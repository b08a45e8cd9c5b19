"""Quantized models: the real numbers that whole ones stand for, and the whole numbers, each where it is asked for.

A QuantizeLinear and a DequantizeLinear with the same scale are one FakeQuantWithMinMaxVars, which carries the range
that int8 is made with. The whole numbers themselves are computed only where the model asks for them: in float32, exact
while sums stay below 2^24.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.arithmetic import add, div, mul, sub
from edgeloop.convert.onnx.value import Unsupported, Value, unsqueezed
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
helper: Any = need("onnx.helper", extra="convert")

Numbers = Callable[[], Value]
LIMITS = {
    "uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767),
    "uint4": (0, 15), "int4": (-8, 7),
}  # fmt: skip
# operators that only move elements, or take the largest: quantized numbers stay what they stand for
CARRIED = ("Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


class Quantized(Value):
    """Whole numbers with the real ones that they stand for.

    Attributes:
        real: float32, rounded to the steps of `scale`.
        scale: One number, a constant.
        zero: The whole number that stands for 0.
    """

    def __init__(self, real: Value, scale: float, zero: int, dtype: np.dtype, numbers: Numbers):
        super().__init__(real.raw(), dtype, real.perm)
        self.real, self.scale, self.zero, self._numbers = real, scale, zero, numbers
        self._made: dict[Any, Value] = {}

    def numbers(self) -> Value:
        """The whole numbers, computed once for each graph."""
        graph = tf.compat.v1.get_default_graph()
        if graph not in self._made:
            self._made[graph] = self._numbers()
        return self._made[graph]

    def to(self, perm: Any) -> Any:
        """As of every value: the whole numbers."""
        return self.numbers().to(perm)

    def stands_for(self, scale: Value, zero: Value | None) -> bool:
        """Whether these are the scale and the zero that it was made with."""
        return parameters(scale, zero) == (self.scale, self.zero)

    def alike(self, real: Value, numbers: Numbers) -> Quantized:
        """Other numbers with the same scale."""
        return Quantized(real, self.scale, self.zero, self.dtype, numbers)


def parameters(scale: Value, zero: Value | None) -> tuple[float, int] | None:
    """A scale and a zero for the whole tensor, where they are known and a range can be made of them."""
    if scale.const is None or scale.const.size != 1 or (zero is not None and zero.const is None):
        return None
    step = float(scale.const.item())
    return (step, 0 if zero is None else int(zero.const.item())) if 0 < step < np.inf else None  # type: ignore[union-attr]


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of `CARRIED`, of quantized numbers as of real ones."""

    def op(n: Node, x: Any, *rest: Any) -> Any:
        if not isinstance(x, Quantized):
            return function(n, x, *rest)
        real = function(n, x.real, *rest)
        if not isinstance(real, Value) or real.const is not None:
            return function(n, x, *rest)
        return x.alike(real, lambda: function(n, x.numbers(), *rest))

    return op


def quantize(n: Node, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """QuantizeLinear (ONNX 10, 13, 19, 21, 23, 24, 25): of the whole, along an axis, or in blocks; half to even.

    Raises:
        Unsupported: The type of the result is not whole numbers of 4, 8 or 16 bits.
    """
    dtype = zero.dtype if zero is not None else np.dtype(np.uint8)
    if zero is None and n.attr("output_dtype"):
        dtype = helper.tensor_dtype_to_np_dtype(n.attr("output_dtype"))
    return as_quantized(x, scale, zero, dtype, lambda: rounded(n, x, scale, zero, dtype))


def as_quantized(real: Value, scale: Value, zero: Value | None, dtype: np.dtype, numbers: Numbers) -> Value:
    """Both, where LiteRT has a type for them; else the whole numbers alone."""
    known = parameters(scale, zero)
    if real.const is not None or known is None or dtype.name not in ("int8", "uint8"):
        return numbers()
    low, high = (np.float32((limit - known[1]) * known[0]) for limit in LIMITS[dtype.name])
    step = np.float32(known[0])
    fake = tf.round(tf.minimum(tf.maximum(real.raw(), low), high) / step) * step
    return Quantized(Value(fake, np.float32, real.perm), *known, dtype, numbers)


def rounded(n: Node, x: Value, scale: Value, zero: Value | None, dtype: np.dtype) -> Value:
    """x / scale + zero in whole numbers within the limits of `dtype`."""
    if dtype.name not in LIMITS:
        raise Unsupported(f"quantization to {dtype.name}")
    low, high = LIMITS[dtype.name]
    steps, shift = along(scale, n, x), None if zero is None else along(zero, n, x)
    if x.const is not None and steps.const is not None and (shift is None or shift.const is not None):
        counted = np.rint(x.const.astype(np.float32) / steps.const) + (0 if shift is None else shift.const)
        return Value(const=np.clip(counted, low, high).astype(dtype))
    y = div(None, real_number(x), steps)
    y = Value(tf.round(y.raw()), np.float32, y.perm)
    y = y if shift is None else add(None, y, shift)
    return Value(tf.cast(tf.clip_by_value(y.raw(), float(low), float(high)), tf.int32), dtype, y.perm)


def dequantize(n: Node, x: Value, scale: Value, zero: Value | None = None) -> Value:
    """DequantizeLinear (ONNX 10, 13, 19, 21, 23, 24, 25). Constants, also of 4 bits, become real numbers here."""
    dtype = scale.dtype
    if n.attr("output_dtype"):
        dtype = helper.tensor_dtype_to_np_dtype(n.attr("output_dtype"))
    if isinstance(x, Quantized) and x.stands_for(scale, zero):
        return Value(x.real.raw(), dtype, x.perm)
    real = real_number(x) if zero is None else less(real_number(x), along(zero, n, x))
    y = product(real, along(scale, n, x))
    return Value(const=y.const.astype(dtype)) if y.const is not None else Value(y.raw(), dtype, y.perm)


def real_number(v: Value) -> Value:
    """In float32."""
    if v.const is not None:
        return Value(const=v.const.astype(np.float32))
    return Value(tf.cast(v.raw(), tf.float32), np.float32, v.perm)


def product(a: Value, b: Value) -> Value:
    """a * b, now where both are known."""
    if a.const is not None and b.const is not None:
        return Value(const=a.const * b.const)
    return mul(None, a, b)


def along(v: Value, n: Node, x: Value) -> Value:
    """A scale or zero of the whole, of every channel of an axis, or of every block of an axis, ready to broadcast.

    Raises:
        Unsupported: Blocks of computed numbers, or of free sizes.
    """
    v, axis = real_number(v), n.attr("axis", 1) % x.rank if x.rank else 0
    if v.rank == 0 or v.dims == [1]:
        return v if v.rank == 0 or x.rank else Value(v.onnx()[0], np.float32)
    if v.rank == 1:
        return unsqueezed(v, [a for a in range(x.rank) if a != axis])
    total, blocks = x.dims[axis], v.dims[axis]
    if v.const is None or total is None or blocks is None:
        raise Unsupported("quantization in blocks whose scales or sizes are computed")
    width = n.attr("block_size", 0) or -(-total // blocks)
    return Value(const=np.take(np.repeat(v.const, width, axis), range(total), axis))


def less(x: Value, shift: Value) -> Value:
    """x - shift, now where both are known."""
    if x.const is not None and shift.const is not None:
        return Value(const=x.const - shift.const)
    return sub(None, x, shift)


def shifted(x: Value, zero: Value | None, axis: int) -> Value:
    """Whole numbers less their zero, as real ones."""
    return real_number(x) if zero is None else less(real_number(x), per_axis(zero, x.rank, axis))


def per_axis(v: Value, rank: int, axis: int) -> Value:
    """A scale or zero of the whole or along one axis of `rank`, as float32."""
    v = real_number(v)
    if v.rank != 1 or rank == 0:
        return v
    if v.dims == [1]:
        return Value(const=v.const.reshape([])) if v.const is not None else Value(v.onnx()[0], np.float32)
    return unsqueezed(v, [a for a in range(rank) if a != axis % rank])


def real_of(x: Value, scale: Value, zero: Value | None, axis: int) -> Value:
    """What quantized numbers stand for."""
    if isinstance(x, Quantized) and x.stands_for(scale, zero):
        return x.real
    return product(shifted(x, zero, axis), per_axis(scale, x.rank, axis))


def dynamic_quantize(n: Node, x: Value) -> tuple[Value, Value, Value]:
    """DynamicQuantizeLinear (ONNX 11): uint8 over the range of the values and 0; of zeros alone, steps of 1."""
    t = x.raw()
    low, high = tf.minimum(tf.reduce_min(t), 0.0), tf.maximum(tf.reduce_max(t), 0.0)
    scale = tf.where(high > low, (high - low) / 255.0, tf.ones_like(low))
    zero = tf.clip_by_value(tf.round(-low / scale), 0.0, 255.0)
    y = tf.clip_by_value(tf.round(t / scale) + zero, 0.0, 255.0)
    whole_zero = Value(tf.cast(zero, tf.int32), np.uint8)
    return Value(tf.cast(y, tf.int32), np.uint8, x.perm), Value(scale, np.float32), whole_zero


OPS: dict[str, Callable[..., Any]] = {
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QuantizeLinear": quantize,
}
