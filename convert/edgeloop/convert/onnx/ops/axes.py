"""Operators that name, add, drop or repeat axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import (
    AtRunTime,
    Value,
    channels_last,
    relabelled,
    renumbered,
    shape_of,
    size,
    unsqueezed,
)
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def transpose(n: Node, x: Value) -> Value:
    """Transpose (ONNX 1, 13, 21): a new label on the same memory, nothing moves."""
    return relabelled(x, n.attr("perm", list(range(x.rank))[::-1]))


def squeeze(n: Node, x: Value, *_: Any) -> Value:
    """Squeeze (ONNX 1, 11: attribute; 13, 21: input axes)."""
    given = n.known(1, "axes")
    if given is None and None in x.dims:
        raise AtRunTime("Squeeze without axes of free dimensions")
    axes = [i for i, d in enumerate(x.dims) if d == 1] if given is None else [a % x.rank for a in np.ravel(given)]
    kept = [a for a in x.perm if a not in axes]
    t = tf.squeeze(x.raw(), [x.perm.index(a) for a in axes]) if axes else x.raw()
    return Value(t, x.dtype, renumbered(kept))


def unsqueeze(n: Node, x: Value, *_: Any) -> Value:
    """Unsqueeze (ONNX 1, 11: attribute; 13, 21: input axes, which count in the result)."""
    axes = np.ravel(n.known(1, "axes")).tolist()
    rank = x.rank + len(axes)
    return unsqueezed(x, sorted(a % rank for a in axes))


def expand(n: Node, x: Value, target: Value) -> Value:
    """Expand (ONNX 8, 13): broadcasts both ways, so a 1 in the shape keeps what the tensor has."""
    want = targets(target)
    rank = max(len(want), x.rank)
    want = [1] * (rank - len(want)) + want
    if x.rank < rank:
        x = unsqueezed(x, list(range(rank - x.rank)))
    full: list[Any] = []
    for axis, (have, goal) in enumerate(zip(x.dims, want, strict=True)):
        now = have if have is not None else size(x.raw(), x.perm.index(axis))
        if have == 1:
            full.append(goal)
        elif have is not None or (isinstance(goal, int) and goal == 1):
            full.append(now)
        else:
            full.append(tf.maximum(now, goal))
    if all(isinstance(d, int) for d in full) and full == x.dims:
        return x
    return Value(tf.broadcast_to(x.raw(), shape_of([full[a] for a in x.perm])), x.dtype, x.perm)


def tile(n: Node, x: Value, repeats: Value, *old: Value) -> Value:
    """Tile (ONNX 6, 13: repeats an axis; 1: `tiles` along the axis that a third input names)."""
    if old:
        axis, times = int(np.ravel(n.known(2))[0]) % x.rank, targets(repeats)
        all_times = [times[0] if a == axis else 1 for a in range(x.rank)]
    else:
        all_times = targets(repeats)
    return Value(tf.tile(x.raw(), shape_of([all_times[a] for a in x.perm])), x.dtype, x.perm)


def depth_to_space(n: Node, x: Value) -> Value:
    """DepthToSpace (ONNX 1; 11, 13: mode). TFLite's kernel is DCR; CRD reorders the channels before it."""
    block, channels = n.attr("blocksize"), x.dims[1]
    if n.attr("mode", "DCR") == "DCR":
        return Value(tf.nn.depth_to_space(x.last(), block), x.dtype, channels_last(4))
    if channels is None:
        raise AtRunTime("DepthToSpace in mode CRD of a free number of channels")
    order = np.arange(channels).reshape(channels // block**2, block**2).T.ravel()
    return Value(tf.nn.depth_to_space(tf.gather(x.last(), order, axis=3), block), x.dtype, channels_last(4))


def space_to_depth(n: Node, x: Value) -> Value:
    """SpaceToDepth (ONNX 1, 13, 28: mode): channels come as (block, channel), in mode CRD as (channel, block)."""
    block, t = n.attr("blocksize"), tf.nn.space_to_depth(x.last(), n.attr("blocksize"))
    if n.attr("mode", "DCR") == "CRD":
        if x.dims[1] is None:
            raise AtRunTime("SpaceToDepth in mode CRD of a free number of channels")
        t = tf.gather(t, np.arange(block * block * x.dims[1]).reshape(block * block, -1).T.ravel(), axis=3)
    return Value(t, x.dtype, channels_last(4))


def reverse_sequence(n: Node, x: Value, lengths: Value) -> Value:
    """ReverseSequence (ONNX 10). LiteRT reverses no truth values: these go as whole numbers."""
    t = x.onnx()
    t = tf.cast(t, tf.int32) if t.dtype == tf.bool else t
    axes = {"seq_axis": n.attr("time_axis", 0), "batch_axis": n.attr("batch_axis", 1)}
    t = tf.reverse_sequence(t, lengths.onnx(), **axes)
    return Value(tf.not_equal(t, 0) if x.dtype == np.bool_ else t, x.dtype)


OPS = {
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "ReverseSequence": reverse_sequence,
    "SpaceToDepth": space_to_depth,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
