"""Pad, and adding or cutting off what lies outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import Value, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Pads = Sequence[tuple[int, int]]  # before and behind, for each axis


def pad(n: Node, x: Value, *_: Any) -> Value:
    """Pad (ONNX 1, 2, 11, 13, 18, 19, 21, 23, 24): widths are an attribute before opset 11; negative ones cut off."""
    flat, mode = n.known(1, "pads", n.attr("paddings")), n.attr("mode", "constant")
    axes = [a % x.rank for a in n.known(3, "axes", range(x.rank))]
    pads = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pads[axis] = (flat[i], flat[i + len(axes)])
    pads = [pads[axis] for axis in x.perm]
    value = n.given(2).onnx() if n.given(2) is not None else n.attr("value", 0.0)
    value = tf.reshape(tf.cast(value, x.raw().dtype), [])
    return Value(padded(x.raw(), pads, mode, value), x.dtype, x.perm)


def padded(t: Any, pads: Pads, mode: str = "constant", value: Any = 0.0) -> Any:
    """`t` with so many elements more before and behind along each of its axes; negative numbers cut off.

    Args:
        mode: ONNX's "constant", "reflect", "edge", "wrap"; or "symmetric", which repeats the edge once.
    """
    if any(p < 0 for both in pads for p in both):
        t = t[tuple(slice(-min(a, 0) or None, min(b, 0) or None) for a, b in pads)]
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
    if not any(p for both in pads for p in both):
        return t
    if mode == "constant":
        known = tf.get_static_value(value)
        if known is not None and not known:  # PAD has more kernels than PADV2
            return tf.pad(t, pads)
        return tf.pad(t, pads, constant_values=tf.cast(value, t.dtype))
    if mode in ("reflect", "symmetric"):
        return tf.pad(t, pads, mode.upper())
    for axis, (a, b) in enumerate(pads):  # edge, wrap: places to take elements from
        if a or b:
            count = size(t, axis)
            places = tf.range(-a, count + b)
            places = tf.clip_by_value(places, 0, count - 1) if mode == "edge" else tf.math.floormod(places, count)
            t = tf.gather(t, places, axis=axis)
    return t


OPS: dict[str, Callable[..., Any]] = {"Pad": pad}
