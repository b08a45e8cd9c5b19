"""Resize and Upsample: by LiteRT's operators where they take the same pixels, else from neighbours along each axis.

ONNX takes the scale that is given, LiteRT the quotient of the sizes; they differ where a size was rounded down. So the
places that either takes a pixel from are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.resampling import Change, Sampling, coordinates, extrapolated, nearest, now, resampled
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import AtRunTime, Value, channels_last, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def resize(n: Node, x: Value, *_: Any) -> Value:
    """Resize (ONNX 10, 11, 13, 18, 19), Upsample (ONNX 7, 9)."""
    how, moving = sampling(n), changes(n, x)
    if not moving:
        return x
    if not x.raw().dtype.is_floating:  # whole numbers are cut, as in ONNX Runtime
        real = resize(n, Value(tf.cast(x.raw(), tf.float32), np.float32, x.perm))
        return Value(tf.cast(real.raw(), x.raw().dtype), x.dtype, real.perm)
    corners = builtin(x, moving, how)
    if corners is not None:
        return by_builtin(x, moving, how.mode, how.place, *corners)
    t = x.raw()
    for change in moving:
        t = resampled(t, x.perm.index(change.axis), change, how)
    if how.place == "tf_crop_and_resize":
        t = extrapolated(t, x, moving, how, n.attr("extrapolation_value", 0.0))
    return Value(t, x.dtype, x.perm)


def sampling(n: Node) -> Sampling:
    """The attributes. Before opset 11 there was one way to place pixels; ONNX Runtime rounds up where it shrinks."""
    old = n.op == "Upsample" or n.opset < 11
    mode = {"bilinear": "linear", "trilinear": "linear"}.get(n.attr("mode", "nearest"), n.attr("mode", "nearest"))
    return Sampling(
        mode,
        "asymmetric" if old else n.attr("coordinate_transformation_mode", "half_pixel"),
        "simple" if old else n.attr("nearest_mode", "round_prefer_floor"),
        n.attr("cubic_coeff_a", -0.75),
        bool(n.attr("exclude_outside", 0)),
        bool(n.attr("antialias", 0)) and mode != "nearest",
    )


def changes(n: Node, x: Value) -> list[Change]:
    """The axes that are resized."""
    old = n.op == "Upsample" or n.opset < 11
    scales, sizes = (n.given(1), None) if old else (n.given(2), n.given(3))
    if scales is None and n.attr("scales") is not None:
        scales = Value(const=np.asarray(n.attr("scales"), np.float32))
    axes = [a % x.rank for a in n.attr("axes", range(x.rank))]
    if scales is not None and scales.dims != [0]:
        found = by_scales(x, axes, scales)
    elif sizes is not None:
        found = by_sizes(x, axes, sizes, n.attr("keep_aspect_ratio_policy", "stretch"))
    else:
        raise AtRunTime("Resize without scales and sizes")
    region = n.given(1)
    if n.attr("coordinate_transformation_mode") != "tf_crop_and_resize" or region is None or region.dims == [0]:
        return found
    ends = region.const.tolist() if region.const is not None else region.onnx()
    parts = {a: (ends[i], ends[i + len(axes)]) for i, a in enumerate(axes)}
    by_axis = {c.axis: c for c in found}
    whole = [by_axis.get(a, Change(a, *[size(x.raw(), x.perm.index(a))] * 2)) for a in axes]
    cropped = [Change(c.axis, c.size, c.out, c.scale, parts[c.axis]) for c in whole]
    return [c for c in cropped if c.axis in by_axis or c.part != (0.0, 1.0)]


def by_scales(x: Value, axes: Sequence[int], scales: Value) -> list[Change]:
    """Sizes are rounded down in float32. Computed scales are taken to leave batch and channels alone."""
    found = []
    for i, axis in enumerate(axes):
        before = size(x.raw(), x.perm.index(axis))
        if scales.const is None:
            if axis < 2 < x.rank:
                continue
            scale = scales.onnx()[i]
            found.append(Change(axis, before, times(before, scale), scale))
        elif scales.const[i] != 1:
            scale = float(scales.const[i])
            after = int(np.float32(before) * np.float32(scale)) if isinstance(before, int) else times(before, scale)
            found.append(Change(axis, before, after, scale))
    return found


def by_sizes(x: Value, axes: Sequence[int], sizes: Value, policy: str) -> list[Change]:
    """Free sizes of batch and channels stay what they are."""
    symbols: list[tuple[int, int]] = []
    goal, have = targets(sizes, symbols), x.symbols()
    ratio = None
    if policy != "stretch":
        dims = [x.dims[a] for a in axes]
        if None in dims or not all(isinstance(g, int) for g in goal):
            raise AtRunTime(f"keep_aspect_ratio_policy {policy} of free sizes")
        ratio = (min if policy == "not_larger" else max)(g / d for g, d in zip(goal, dims, strict=True) if d)
        goal = [math.floor((x.dims[a] or 0) * ratio + 0.5) for a in axes]
        symbols = [(g, g) for g in goal]
    found = []
    for axis, after, symbol in zip(axes, goal, symbols, strict=True):
        free = x.dims[axis] is None or not isinstance(after, int)
        if symbol == have[axis] or (free and axis < 2 < x.rank):
            continue
        found.append(Change(axis, size(x.raw(), x.perm.index(axis)), after, ratio))
    return found


def times(before: Any, scale: Any) -> Any:
    """A free size times a scale, rounded down."""
    if isinstance(scale, float) and scale.is_integer():
        return before * int(scale)
    return tf.cast(tf.floor(tf.cast(before, tf.float32) * scale), tf.int32)


def builtin(x: Value, moving: Sequence[Change], how: Sampling) -> tuple[bool, bool] | None:
    """With which of align_corners and half_pixel_centers LiteRT's operator takes the same pixels; None if with none."""
    if how.mode not in ("linear", "nearest") or how.antialias or how.place == "tf_crop_and_resize":
        return None
    if x.rank not in (3, 4) or any(c.axis < 2 for c in moving):
        return None
    if how.mode == "nearest" and how.place == "align_corners" and how.rounding != "round_prefer_ceil":
        return None
    for corners in ((False, False), (False, True), (True, False)):
        if all(agrees(change, how, *corners) for change in moving):
            return corners
    return None


def agrees(change: Change, how: Sampling, align: bool, half: bool) -> bool:
    """Whether LiteRT's operator takes an axis's pixels from where ONNX does. Of free sizes only what always agrees."""
    if change.known:
        theirs = (np.arange(change.out, dtype=np.float32) + np.float32(0.5 if half else 0)) * litert_scale(
            change, align
        )
        ours = now(coordinates, change, how.place)
        if how.mode == "linear":
            pair = [np.clip(v, 0, change.size - 1) for v in (ours, theirs - np.float32(0.5 if half else 0))]
            return bool(np.abs(pair[0] - pair[1]).max(initial=0) < 1e-4)
        theirs = np.floor(theirs + 0.5) if align else np.floor(theirs)
        return bool((np.clip(theirs, 0, change.size - 1) == now(nearest, change, how)).all())
    whole = isinstance(change.scale, float) and change.scale.is_integer()
    if change.scale is not None and not whole and not align:
        return False
    if how.mode == "linear":
        return how.place in {(False, False): ("asymmetric",), (True, False): ("align_corners",)}.get(
            (align, half), ("half_pixel", "pytorch_half_pixel")
        )
    if whole and not align and not half:  # every pixel so many times
        repeats = {"asymmetric": ("floor", "simple"), "half_pixel": ("round_prefer_floor", "round_prefer_ceil")}
        return how.rounding in repeats.get(how.place, ())
    same = {(False, False): ("asymmetric", "floor"), (False, True): ("half_pixel", "round_prefer_ceil")}
    return (how.place, how.rounding) == same.get((align, half), ("align_corners", "round_prefer_ceil"))


def litert_scale(change: Change, align: bool) -> np.float32:
    """Pixels of the input to one of the output, as LiteRT computes them."""
    if align and change.out > 1:
        return np.float32(change.size - 1) / np.float32(change.out - 1)
    return np.float32(change.size) / np.float32(change.out)


def by_builtin(x: Value, moving: Sequence[Change], mode: str, place: str, align: bool, half: bool) -> Value:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR; over one spatial axis as over an image of height 1."""
    function = tf.raw_ops.ResizeBilinear if mode == "linear" else tf.raw_ops.ResizeNearestNeighbor
    outs = {c.axis: c.out for c in moving}
    t = x.last() if place != "pytorch_half_pixel" else first_of_one(x.last(), moving)
    t = t if x.rank == 4 else tf.expand_dims(t, 1)
    wanted = [outs[axis] if axis in outs else size(x.last(), axis - 1) for axis in range(2, x.rank)]
    shape = shape_of([1, *wanted] if x.rank == 3 else wanted)
    y = function(images=t, size=shape, align_corners=align, half_pixel_centers=half)
    return Value(y if x.rank == 4 else tf.squeeze(y, 1), x.dtype, channels_last(x.rank))


def first_of_one(t: Any, moving: Sequence[Change]) -> Any:
    """PyTorch makes one element of the first one, LiteRT of the middle: where a free size may be 1, the rest is cut."""
    kept = [slice(None)] * t.shape.rank
    for c in moving:
        if c.scale is None and not isinstance(c.out, int):
            kept[c.axis - 1] = slice(0, tf.where(c.out > 1, c.size, 1))
    return t[tuple(kept)]


OPS: dict[str, Callable[..., Any]] = {"Resize": resize, "Upsample": resize}
