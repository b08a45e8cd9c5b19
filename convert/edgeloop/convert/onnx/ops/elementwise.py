"""Operators that compute element by element, in whatever order of axes their inputs lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import Value, narrowed, unsqueezed
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def align(values: Sequence[Value]) -> tuple[list, tuple[int, ...]]:
    """The tensors in one common order of axes, ready to broadcast, and that order."""
    rank = max(v.rank for v in values)
    cost: dict[tuple, int] = {}
    for v in values:
        if v.rank == rank and v.const is None:
            cost[v.perm] = cost.get(v.perm, 0) + math.prod(d or 64 for d in v.dims)
    perm = max(cost, key=cost.__getitem__) if cost else tuple(range(rank))  # the bulk of the elements stays in place
    return [lifted(v, rank, perm) for v in values], perm


def lifted(v: Value, rank: int, perm: tuple[int, ...]) -> Any:
    """A tensor in the order `perm` of `rank` axes, with ones before a shorter shape where broadcasting needs them."""
    if v.rank == 0 or perm == tuple(range(rank)):
        return v.onnx()
    if v.const is not None:
        if v.const.size == 1:
            return tf.constant(narrowed(v.const).reshape([1] * (rank if v.rank == rank else 0)))
        return Value(const=v.const.reshape([1] * (rank - v.rank) + list(v.const.shape))).to(perm)
    if v.rank < rank:
        v = unsqueezed(v, list(range(rank - v.rank)))
    return v.to(perm)


def nary(function: Callable, dtype: Any = None) -> Callable[..., Value]:
    """An operator of several inputs that broadcast; `dtype` of its result where that is not the first input's."""

    def op(n: Node | None, *values: Value) -> Value:
        tensors, perm = align(values)
        return Value(function(*tensors), dtype or values[0].dtype, perm)

    return op


def unary(function: Callable, dtype: Any = None) -> Callable[..., Value]:
    """An operator of one input, e.g. `unary(tf.abs)`."""
    return lambda n, x, *_: Value(function(x.raw()), dtype or x.dtype, x.perm)


OPS = {
    "Abs": unary(tf.abs),
    "Add": nary(tf.add),
    "And": nary(tf.logical_and),
    "Equal": nary(tf.equal, np.bool_),
    "Mul": nary(tf.multiply),
    "Relu": unary(tf.nn.relu),
    "Sigmoid": unary(tf.sigmoid),
    "Sub": nary(tf.subtract),
}
