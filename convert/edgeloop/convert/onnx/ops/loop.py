"""Loop: straight code where the number of steps is known and small, else a WHILE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.joining import joined
from edgeloop.convert.onnx.ops.repetition import UNROLLED_STEPS, Repetition
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, unsqueezed, working_type
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
func_graph: Any = need("tensorflow.python.framework.func_graph", extra="convert")

FOREVER = 2**31 - 1
Shapes = list[Any]  # of tf.TensorShape
Rows = list[tuple[np.dtype, list[int | None]]]  # type and sizes of a row of each scan output


def loop(n: Node, trips: Value | None, condition: Value | None, *carried: Any) -> tuple[Any, ...]:
    """Loop (ONNX 1, 11, 13, 16, 19, 21): the carried values, then the scan outputs."""
    go = condition or Value(const=np.asarray(True))
    limit = FOREVER if trips is None or trips.const is None else min(int(trips.const.item()), FOREVER)
    if limit <= UNROLLED_STEPS and go.const is not None:
        results = _straight(n, limit, go, carried)
        if results is not None:
            return results
    if not all(isinstance(v, Value) for v in carried):
        raise AtRunTime("a Loop that carries a sequence, of a number of steps known at run time")
    most = tf.reshape(trips.onnx(), []) if trips is not None and trips.const is None else limit
    return _repeated(n, most, go, list(carried))


def _step(n: Node, i: Value, go: Value, carried: Sequence[Any]) -> list[Any]:
    names = [v.name for v in n.attr("body").input]
    return n.body("body", **dict(zip(names, [i, go, *carried], strict=True)))


def _straight(n: Node, limit: int, go: Value, carried: Sequence[Any]) -> tuple[Any, ...] | None:
    """Every step's code one after the other; None if a step's own condition is not known."""
    kept, k = list(carried), len(carried)
    rows: list[list[Value]] = [[] for _ in n.attr("body").output[1 + k :]]
    for i in range(limit):
        if not go.const.item():  # type: ignore[union-attr]
            break
        go, *results = _step(n, Value(const=np.asarray(i, np.int64)), go, kept)
        if go.const is None:
            return None
        kept = results[:k]
        for row, value in zip(rows, results[k:], strict=True):
            row.append(unsqueezed(value, [0]))
    if rows and not all(rows):
        return None
    return (*kept, *(joined(row, 0) for row in rows))


def _repeated(n: Node, most: Any, go: Value, kept: list[Value]) -> tuple[Value, ...]:
    types, k = [v.dtype for v in kept], len(kept)
    shapes, rows = _settled(n, types, [tf.TensorShape(v.dims) for v in kept])

    def turn(i: Any, parts: list, states: list) -> tuple[list, list]:
        values = [Value(t, d) for t, d in zip(states[1:], types, strict=True)]
        go, *results = _step(n, Value(i, np.int64), Value(states[0], np.bool_), values)
        new = [_shaped(v, s) for v, s in zip(results[:k], shapes, strict=True)]
        return [tf.reshape(go.onnx(), []), *new], [v.onnx() for v in results[k:]]

    start = [tf.reshape(go.onnx(), []), *(v.onnx() for v in kept)]
    sizes = [[], *(s.as_list() for s in shapes)]
    repetition = Repetition(turn, [], sizes, [dims for _, dims in rows], conditional=True)
    states, collected = repetition.run(most, start, _empty(n, go, kept, rows))
    tensors = [*states[1:], *collected]
    return tuple(Value(t, d) for t, d in zip(tensors, [*types, *(d for d, _ in rows)], strict=True))


def _settled(n: Node, types: Sequence[np.dtype], shapes: Shapes) -> tuple[Shapes, Rows]:
    """The shapes that stay the same from step to step (None where a size does not), found by trying steps."""
    k = len(shapes)
    while True:
        with func_graph.FuncGraph("trial").as_default():
            place = tf.compat.v1.placeholder
            carried = [Value(place(working_type(d), s), d) for d, s in zip(types, shapes, strict=True)]
            _, *out = _step(n, Value(place(tf.int32, []), np.int64), Value(place(tf.bool, []), np.bool_), carried)
            if not all(isinstance(v, Value) for v in out):
                raise Unsupported("a Loop that makes a sequence, of a number of steps known at run time")
            rows = [(v.dtype, v.dims) for v in out[k:]]
            made = [_one_element(s, tf.TensorShape(v.dims)) for s, v in zip(shapes, out[:k], strict=True)]
        if any(a.rank != b.rank for a, b in zip(shapes, made, strict=True)):
            raise AtRunTime("a Loop whose carried values change their rank")
        wider = [a.most_specific_compatible_shape(b) for a, b in zip(shapes, made, strict=True)]
        if all(a.as_list() == b.as_list() for a, b in zip(wider, shapes, strict=True)):
            return shapes, rows
        shapes = wider


def _one_element(a: Any, b: Any) -> Any:
    """[] and [1] are one shape: exporters mix them."""
    same = a.is_fully_defined() and b.is_fully_defined() and a.num_elements() == b.num_elements() == 1
    return a if same else b


def _shaped(v: Value, wanted: Any) -> Any:
    return tf.reshape(v.onnx(), wanted) if wanted.is_fully_defined() else v.onnx()


def _empty(n: Node, go: Value, kept: Sequence[Value], rows: Rows) -> list[Any]:
    """A row of zeros of each scan output. Where its sizes are free, one step ahead of the loop tells them."""
    if not any(None in dims for _, dims in rows):
        return [tf.zeros([1, *dims], working_type(d)) for d, dims in rows]
    first = _step(n, Value(tf.constant(0), np.int64), Value(tf.reshape(go.onnx(), []), np.bool_), kept)
    return [tf.zeros_like(v.onnx())[None] for v in first[1 + len(kept) :]]


OPS = {"Loop": loop}
