"""If: one branch where the condition is known while importing, else both, and LiteRT's IF chooses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import reshaped
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def if_(n: Node, condition: Value) -> tuple[Any, ...]:
    """If (ONNX 1, 11, 13, 16, 19, 21).

    PyTorch writes one around a squeeze, whose branches differ in rank: the sizes then say which one is meant. Branches
    of one number of elements in different ranks get the shape of the "then" branch's, or of the declared output.

    Raises:
        AtRunTime: The condition depends on the data, and the branches differ in rank.
    """
    if condition.const is not None:
        return tuple(n.body("then_branch" if condition.const.item() else "else_branch"))
    made: dict[str, list[Value]] = {}

    def branch(name: str) -> Callable[[], list]:
        def build() -> list:
            made[name] = [_tensor(v) for v in n.body(name)]
            if name == "else_branch":
                made[name] = [_alike(v, a) for v, a in zip(made[name], made["then_branch"], strict=True)]
            return [tf.identity(v.onnx()) for v in made[name]]

        return build

    results = tf.cond(tf.reshape(condition.onnx(), []), branch("then_branch"), branch("else_branch"))
    return tuple(Value(t, v.dtype) for t, v in zip(results, made["then_branch"], strict=True))


def _tensor(v: Any) -> Value:
    if not isinstance(v, Value):
        raise Unsupported("a branch whose result is a sequence")
    return v


def _alike(v: Value, other: Value) -> Value:
    if v.rank == other.rank:
        return v
    sizes: list[Any] = v.dims
    wanted: list[Any] = other.dims
    if None in sizes or None in wanted or math.prod(sizes) != math.prod(wanted):
        raise AtRunTime(f"branches of different ranks ({other.rank} and {v.rank})")
    return reshaped(v, wanted)


OPS = {"If": if_}
