"""Arithmetic of two or more tensors, bits, and conversions between types.

Whole numbers are computed in 32 bits; 8 and 16 bit ones wrap around as ONNX's do. LiteRT has BITWISE_XOR and
RIGHT_SHIFT: And, Or and left shifts are made of these, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.elementwise import align, nary, scalar, unary, variadic, wrapped
from edgeloop.convert.onnx.value import Value, working_type
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
helper: Any = need("onnx.helper", extra="convert")


def _quotient(a: Any, b: Any) -> Any:
    return a / b if a.dtype.is_floating else tf.truncatediv(a, b)  # ONNX rounds whole numbers towards zero


add = nary(tf.add, wraps=True)
sub = nary(tf.subtract, wraps=True)
mul = nary(tf.multiply, wraps=True)
div = nary(_quotient, wraps=True)


def mean(n: Node, *values: Value) -> Value:
    """Mean (ONNX 6, 8, 13)."""
    return mul(None, variadic(tf.add)(n, *values), scalar(1 / len(values)))


def power(n: Node, x: Value, y: Value) -> Value:
    """Pow (ONNX 7, 12, 13, 15). The types of base and exponent may differ; the result has the base's.

    Small constant exponents become products, which also take negative bases and fuse with what follows.
    """
    exponent = y.const.item() if y.const is not None and y.const.size == 1 and y.rank <= x.rank else None
    t = x.raw()
    if exponent in (1, 2, 3) and t.dtype.is_floating:
        return Value(t if exponent == 1 else t * t if exponent == 2 else t * t * t, x.dtype, x.perm)
    if exponent == 0.5 and t.dtype.is_floating:
        return Value(tf.sqrt(t), x.dtype, x.perm)
    (a, b), perm = align([x, y])
    if not a.dtype.is_floating and b.dtype.is_floating:  # LiteRT's powers of whole numbers take whole exponents
        return Value(wrapped(tf.cast(tf.pow(tf.cast(a, tf.float32), b), tf.int32), x.dtype), x.dtype, perm)
    return Value(wrapped(tf.pow(a, tf.cast(b, a.dtype)), x.dtype), x.dtype, perm)


def modulo(n: Node, x: Value, y: Value) -> Value:
    """Mod (ONNX 10, 13). With `fmod` the sign is the dividend's, else the divisor's.

    LiteRT's FLOOR_MOD of two positive floats is C's fmod, exact; dividing and rounding is off by a divisor where the
    quotient is rounded up to a whole number (6 mod 0.1).
    """
    if n.attr("fmod", 0):
        return nary(lambda a, b: tf.sign(a) * tf.math.floormod(tf.abs(a), tf.abs(b)))(None, x, y)
    return nary(tf.math.floormod)(None, x, y)


def bits_of_both(a: Any, b: Any) -> Any:
    """The bits that are set in both of two int32: (a + b - (a xor b)) / 2, in halves of 16 bits, where sums fit."""
    high_a, high_b = (tf.bitwise.right_shift(t, 16) for t in (a, b))
    low_a, low_b = a - high_a * 65536, b - high_b * 65536
    high = tf.bitwise.right_shift(high_a + high_b - tf.bitwise.bitwise_xor(high_a, high_b), 1)
    low = tf.bitwise.right_shift(low_a + low_b - tf.bitwise.bitwise_xor(low_a, low_b), 1)
    return high * 65536 + low


def bits_of_either(a: Any, b: Any) -> Any:
    """The bits that are set in one or both of two int32."""
    return tf.bitwise.bitwise_xor(a, b) + bits_of_both(a, b)  # no bit is in both terms


def bit_shift(n: Node, x: Value, y: Value) -> Value:
    """BitShift (ONNX 11, 28). A shift by less than 0 or by the whole width leaves copies of the sign, or zeros."""
    width = x.dtype.itemsize * 8

    def right(a: Any, by: Any) -> Any:
        return tf.bitwise.right_shift(a, tf.where((by >= 0) & (by < width), by, 31))

    def left(a: Any, by: Any) -> Any:
        by = tf.where((by >= 0) & (by < width), by, 0)
        half = tf.bitwise.right_shift(by, 1)
        return a * tf.pow(2, half) * tf.pow(2, by - half)  # 2^31 is no int32

    if n.attr("direction") == "RIGHT":
        return nary(right)(None, x, y)
    return nary(lambda a, by: tf.where((by >= 0) & (by < width), left(a, by), 0), wraps=True)(None, x, y)


def cast(n: Node, x: Value, *like: Value) -> Value:
    """Cast (ONNX 6, 9, 13, 19, 21, 23, 24, 25), CastLike (ONNX 15 and later).

    float16 and bfloat16 are computed in float32, so a conversion to them does not round; outputs of the model do.
    """
    dtype = like[0].dtype if n.op == "CastLike" else helper.tensor_dtype_to_np_dtype(n.attr("to"))
    t, work = x.raw(), working_type(dtype)
    if work == tf.bool:
        return Value(t if t.dtype == tf.bool else tf.not_equal(t, tf.zeros([], t.dtype)), dtype, x.perm)
    fits = x.dtype.kind == "b" or np.can_cast(x.dtype, dtype)
    return Value(tf.cast(t, work) if fits else wrapped(tf.cast(t, work), dtype), dtype, x.perm)


OPS: dict[str, Callable[..., Any]] = {
    "Add": add,
    "BitShift": bit_shift,
    "BitwiseAnd": nary(bits_of_both),
    "BitwiseNot": unary(lambda t: -1 - t, wraps=True),
    "BitwiseOr": nary(bits_of_either),
    "BitwiseXor": nary(tf.bitwise.bitwise_xor),
    "Cast": cast,
    "CastLike": cast,
    "Div": div,
    "Max": variadic(tf.maximum),
    "Mean": mean,
    "Min": variadic(tf.minimum),
    "Mod": modulo,
    "Mul": mul,
    "Pow": power,
    "Sub": sub,
    "Sum": variadic(tf.add),
}
