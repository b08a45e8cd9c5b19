"""Operators that make a tensor out of numbers or of a shape: Constant, Shape, Range and the like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeloop.convert.onnx.fold import refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, narrowed, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
helper: Any = need("onnx.helper", extra="convert")
numpy_helper: Any = need("onnx.numpy_helper", extra="convert")


def shape(n: Node, x: Value) -> Value:
    """Shape (ONNX 1, 13; 15, 19, 21: start, end): a constant where the sizes are fixed, else followed in a pair."""
    axes = range(x.rank)[n.attr("start", 0) : n.attr("end", x.rank)]
    dims, sizes = [x.dims[a] for a in axes], x.symbols()
    if None not in dims:
        return Value(const=np.asarray(dims, np.int64))
    pair = tuple(np.array([sizes[a][k] for a in axes], np.int64) for k in (0, 1))
    places, t = [x.perm.index(a) for a in axes], tf.shape(x.raw())
    whole = places == list(range(x.rank))
    return Value(t if whole else shape_of([t[p] for p in places]), np.int64, pair=pair)  # type: ignore[arg-type]


def size_of(n: Node, x: Value) -> Value:
    """Size (ONNX 1, 13, 19, 21)."""
    if None not in x.dims:
        return Value(const=np.asarray(math.prod(x.dims), np.int64))  # type: ignore[arg-type]
    return Value(tf.reduce_prod(tf.shape(x.raw())), np.int64)


def constant(n: Node) -> Value:
    """Constant (ONNX 1, 9, 11; 12, 13: value_ints and the like)."""
    for a in n.proto.attribute:
        value = helper.get_attribute_value(a)
        if a.name == "value":
            return Value(const=numpy_helper.to_array(value))
        if a.name in ("value_float", "value_floats", "value_int", "value_ints"):
            return Value(const=np.asarray(value, np.int64 if "int" in a.name else np.float32))
        raise Unsupported(f"a constant in attribute {a.name!r}")
    raise Unsupported("a Constant without a value")


def constant_of_shape(n: Node, dims: Value) -> Value:
    """ConstantOfShape (ONNX 9, 20, 21): zeros of float32 without a value."""
    value = n.attr("value")
    fill = numpy_helper.to_array(value) if value is not None else np.zeros(1, np.float32)
    return Value(tf.fill(shape_of(targets(dims)), tf.constant(narrowed(fill).reshape(()))), fill.dtype)


def range_(n: Node, start: Value, limit: Value, delta: Value) -> Value:
    """Range (ONNX 11, 27)."""
    return Value(tf.range(*(tf.reshape(v.onnx(), []) for v in (start, limit, delta))), start.dtype)


def one_hot(n: Node, index: Value, depth: Value, values: Value) -> Value:
    """OneHot (ONNX 9, 11): negative indices count from the end, others beyond `depth` are off everywhere."""
    axis, count = n.attr("axis", -1) % (index.rank + 1), tf.reshape(tf.cast(depth.onnx(), tf.int32), [])
    if depth.const is not None:
        count = int(depth.const.item())
    i = tf.cast(index.onnx(), tf.int32)
    i = tf.expand_dims(tf.where(i < 0, i + count, i), axis)
    hit = tf.equal(i, tf.reshape(tf.range(count), [-1 if a == axis else 1 for a in range(index.rank + 1)]))
    off, on = values.onnx()[0], values.onnx()[1]
    return Value(tf.where(hit, on, off), values.dtype)


def eye_like(n: Node, x: Value) -> Value:
    """EyeLike (ONNX 9, 22)."""
    dtype = helper.tensor_dtype_to_np_dtype(n.attr("dtype")) if n.attr("dtype") else x.dtype
    if None in x.dims:
        raise AtRunTime("EyeLike of free dimensions")
    refuse_large(x.dims)
    rows, columns = (d for d in x.dims if d is not None)
    return Value(const=np.eye(rows, columns, n.attr("k", 0)).astype(dtype))


def trilu(n: Node, x: Value, *_: Any) -> Value:
    """Trilu (ONNX 14): the triangle on one side of diagonal k; the rest becomes zero."""
    k, t = n.given(1), x.onnx()
    diagonal = 0 if k is None else tf.reshape(k.onnx(), []) if k.const is None else int(k.const.item())
    rows, columns = tf.range(size(t, x.rank - 2))[:, None], tf.range(size(t, x.rank - 1))[None, :]
    keep = columns - rows >= diagonal if n.attr("upper", 1) else columns - rows <= diagonal
    return Value(tf.where(keep, t, tf.zeros([], t.dtype)), x.dtype)


def identity(n: Node, x: Any) -> Any:
    """Identity (ONNX 1, 13, 14: sequences; 16: optionals; 19, 21)."""
    return x


def dropout(n: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> tuple[Value, Value]:
    """Dropout (ONNX 7, 10; 12, 13, 22: input training_mode): the input as it is, and a mask of true."""
    if training is not None and (training.const is None or training.const.any()):
        raise Unsupported("dropout that trains")
    return x, Value(tf.ones_like(x.raw(), tf.bool), np.bool_, x.perm)


OPS = {
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Dropout": dropout,
    "EyeLike": eye_like,
    "Identity": identity,
    "OneHot": one_hot,
    "Range": range_,
    "Shape": shape,
    "Size": size_of,
    "Trilu": trilu,
}
