"""Pad, and adding or cutting off what lies outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Pads = Sequence[tuple[Any, Any]]  # before and behind, for each axis; numbers, or scalar tensors


def pad(n: Node, x: Value, *_: Any) -> Value:
    """Pad (ONNX 1, 2, 11, 13, 18, 19, 21, 23, 24): widths are an attribute before opset 11; negative ones cut off."""
    flat = targets(n.given(1)) if n.given(1) is not None else n.attr("pads", n.attr("paddings"))
    axes, mode = [a % x.rank for a in n.known(3, "axes", range(x.rank))], n.attr("mode", "constant")
    pads: list[tuple[Any, Any]] = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pads[axis] = (flat[i], flat[i + len(axes)])
    pads = [pads[axis] for axis in x.perm]
    value = n.given(2).onnx() if n.given(2) is not None else n.attr("value", 0.0)
    value = tf.reshape(tf.cast(value, x.raw().dtype), [])
    return Value(padded(x.raw(), pads, mode, value), x.dtype, x.perm)


def center_crop_pad(n: Node, x: Value, shape: Value) -> Value:
    """CenterCropPad (ONNX 18): the odd element of what is cut or added is behind."""
    pads: list[tuple[Any, Any]] = [(0, 0)] * x.rank
    for axis, want in zip([a % x.rank for a in n.attr("axes", range(x.rank))], targets(shape), strict=True):
        place = x.perm.index(axis)
        more = want - size(x.raw(), place)
        if isinstance(more, int):
            before = more // 2 if more > 0 else -(-more // 2)
        else:
            before = tf.sign(more) * tf.math.floordiv(tf.abs(more), 2)
        pads[place] = (before, more - before)
    return Value(padded(x.raw(), pads), x.dtype, x.perm)


def padded(t: Any, pads: Pads, mode: str = "constant", value: Any = 0.0) -> Any:
    """`t` with so many elements more before and behind along each of its axes; negative numbers cut off.

    Args:
        mode: ONNX's "constant", "reflect", "edge", "wrap"; or "symmetric", which repeats the edge once.
    """
    known = all(isinstance(p, int) for both in pads for p in both)
    if not known or any(p < 0 for both in pads for p in both):
        t = cut_off(t, pads)
        pads = [(_at_least_0(a), _at_least_0(b)) for a, b in pads]
    if known and not any(p for both in pads for p in both):
        return t
    widths = pads if known else tf.stack([shape_of(both) for both in pads])
    if mode == "constant":
        fill = tf.get_static_value(value)
        if fill is not None and not fill:  # PAD has more kernels than PADV2
            return _sized(tf.pad(t, widths), t, pads)
        return _sized(tf.pad(t, widths, constant_values=tf.cast(value, t.dtype)), t, pads)
    if mode in ("reflect", "symmetric"):
        return _sized(tf.pad(t, widths, mode.upper()), t, pads)
    for axis, (a, b) in enumerate(pads):  # edge, wrap: places to take elements from
        if not isinstance(a, int) or not isinstance(b, int) or a or b:
            count = size(t, axis)
            places = tf.range(-a, count + b)
            places = tf.clip_by_value(places, 0, count - 1) if mode == "edge" else tf.math.floormod(places, count)
            t = tf.gather(t, places, axis=axis)
    return t


def _sized(made: Any, t: Any, pads: Pads) -> Any:
    """What `t` became. TensorFlow's converter forgets all sizes where one width is computed, also the channels, without
    which a convolution is none of LiteRT's; RESHAPE says them again."""
    known = [isinstance(a, int) and isinstance(b, int) for a, b in pads]
    sizes = [
        d + sum(both) if fits and d is not None else None for d, both, fits in zip(t.shape, pads, known, strict=True)
    ]
    if all(known) or all(d is None for d in sizes):
        return made
    return tf.reshape(made, shape_of([size(made, axis) if d is None else d for axis, d in enumerate(sizes)]))


def cut_off(t: Any, pads: Pads) -> Any:
    """`t` without what negative numbers of `pads` cut off."""
    kept = []
    for axis, (a, b) in enumerate(pads):
        if isinstance(a, int) and isinstance(b, int):
            kept.append(slice(-min(a, 0) or None, min(b, 0) or None))
        else:
            kept.append(slice(_at_least_0(-a), size(t, axis) - _at_least_0(-b)))
    return t[tuple(kept)]


def _at_least_0(number: Any) -> Any:
    return max(number, 0) if isinstance(number, int) else tf.maximum(number, 0)


OPS: dict[str, Callable[..., Any]] = {"CenterCropPad": center_crop_pad, "Pad": pad}
