"""GridSample and AffineGrid: read a tensor at places between its elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.fold import refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.reshape import targets
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, channels_last, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

MODES = {"bilinear": "linear", "bicubic": "cubic"}  # their names before opset 20
CUBIC_A = -0.75  # the cubic convolution's coefficient, as PyTorch and ONNX Runtime have it


def grid_sample(n: Node, x: Value, grid: Value) -> Value:
    """GridSample (ONNX 16; 20: any number of axes, linear and cubic; 22): bounds are applied to each element read.

    Measured against ONNX Runtime with grids of -1.5..1.5: 1e-6 of the largest value.
    """
    mode = MODES.get(n.attr("mode", "linear"), n.attr("mode", "linear"))
    weights = {"linear": _linear, "nearest": _nearest, "cubic": _cubic}.get(mode)
    if weights is None:
        raise Unsupported(f"a GridSample in mode {mode}")
    aligned, bounds = bool(n.attr("align_corners", 0)), n.attr("padding_mode", "zeros")
    t, g = x.last(), grid.onnx()
    sizes = [size(t, axis) for axis in range(1, x.rank - 1)]
    around = []  # of each axis, what is read: places, and weights
    for axis, d in enumerate(sizes):
        at = g[..., len(sizes) - 1 - axis]  # the last axis comes first in the grid
        length = tf.cast(d, tf.float32)
        at = (at + 1.0) / 2.0 * (length - 1.0) if aligned else ((at + 1.0) * length - 1.0) / 2.0
        around.append([_bounded(place, weight, d, bounds, aligned) for place, weight in weights(at)])
    flat = tf.reshape(t, shape_of([size(t, 0), -1 if _free(sizes) else math.prod(sizes), size(t, x.rank - 1)]))
    total: Any = 0.0
    for corner in itertools.product(*around):
        total = total + _read(flat, corner, sizes)
    return Value(total, x.dtype, channels_last(x.rank))


def _free(sizes: Sequence[Any]) -> bool:
    return not all(isinstance(d, int) for d in sizes)


def _read(flat: Any, corner: Sequence[tuple[Any, Any]], sizes: Sequence[Any]) -> Any:
    """The elements at one place along every axis, by the product of the weights: [batch, ..., channels]."""
    place, weight = corner[0]
    for (p, w), d in zip(corner[1:], sizes[1:], strict=True):
        place = place * d + p
        weight = w if weight is None else weight if w is None else weight * w
    got = tf.gather(flat, place, axis=1, batch_dims=1)
    return got if weight is None else got * tf.expand_dims(weight, -1)


def _linear(at: Any) -> list[tuple[Any, Any]]:
    low = tf.floor(at)
    return [(low, low + 1.0 - at), (low + 1.0, at - low)]


def _nearest(at: Any) -> list[tuple[Any, Any]]:
    return [(tf.round(at), None)]  # halves to even, as ONNX Runtime's nearbyint


def _cubic(at: Any) -> list[tuple[Any, Any]]:
    """Keys 1981, equation 4, with a = CUBIC_A, around the element below."""
    low = tf.floor(at)
    s, a = at - low, CUBIC_A

    def far(d: Any) -> Any:
        return ((d - 5.0) * d + 8.0) * d * a - 4.0 * a

    def near(d: Any) -> Any:
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0

    return [(low - 1.0, far(s + 1.0)), (low, near(s)), (low + 1.0, near(1.0 - s)), (low + 2.0, far(2.0 - s))]


def _bounded(place: Any, weight: Any, length: Any, bounds: str, aligned: bool) -> tuple[Any, Any]:
    """Places made to lie inside (int32), and the weights of those that count."""
    last = tf.cast(length - 1, tf.float32)
    if bounds == "zeros":
        inside = tf.cast(tf.logical_and(place >= 0.0, place <= last), tf.float32)
        weight = inside if weight is None else weight * inside
    elif bounds == "reflection":
        place = _reflected(place, last, aligned)
    elif bounds != "border":
        raise Unsupported(f"a GridSample with padding mode {bounds}")
    return tf.cast(tf.clip_by_value(place, 0.0, last), tf.int32), weight


def _reflected(place: Any, last: Any, aligned: bool) -> Any:
    """At the middle of the outermost elements (aligned), or half an element further out."""
    if aligned:
        period = tf.maximum(2.0 * last, 1.0)
        place = tf.math.floormod(place, period)
        return tf.minimum(place, period - place)
    period = 2.0 * last + 2.0
    place = tf.math.floormod(place, period)
    return tf.minimum(place, period - 1.0 - place)


def affine_grid(n: Node, theta: Value, dims: Value) -> Value:
    """AffineGrid (ONNX 20): for every element of an image of a known size, where `theta` [batch, axes, axes + 1] reads.

    Raises:
        AtRunTime: Height or width is computed. The batch is that of `theta`.
    """
    inner = targets(dims)[2:]
    if _free(inner):
        raise AtRunTime("AffineGrid of a size that is computed at run time")
    refuse_large([*inner, len(inner) + 1])
    steps = [_middles(d, bool(n.attr("align_corners", 0))) for d in inner]
    grid = np.meshgrid(*steps, indexing="ij")[::-1]  # the last axis comes first
    base = np.stack([*grid, np.ones_like(grid[0])], -1).reshape(-1, len(inner) + 1).astype(np.float32)
    t = tf.matmul(tf.constant(base)[None] + tf.zeros_like(theta.onnx()[:, :1, :1]), theta.onnx(), transpose_b=True)
    return Value(tf.reshape(t, [-1, *inner, len(inner)]), theta.dtype)


def _middles(count: int, aligned: bool) -> np.ndarray:
    """The places of elements in -1..1: of their middles, or from end to end (aligned)."""
    if aligned and count > 1:
        return np.linspace(-1, 1, count)
    return (2 * np.arange(count) + 1) / count - 1 if not aligned else np.zeros(count)


OPS = {"AffineGrid": affine_grid, "GridSample": grid_sample}
