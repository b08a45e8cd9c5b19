"""Where the pixels of a resized axis come from, and the axis itself, by gathering neighbours or by a table of weights.

ONNX Runtime computes places in float32, and so does this: at ties of "nearest" it matters. For align_corners ONNX
Runtime (and PyTorch) use the whole sizes, the specification's reference the product of size and scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.convert.onnx.value import AtRunTime, Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


@dataclass(frozen=True, slots=True)
class Change:
    """An axis that is resized. What is not known now is a scalar tensor.

    Attributes:
        axis: ONNX's.
        size: Elements before.
        out: Elements after.
        scale: ONNX's factor. None: `out` divided by `size`.
        part: The region of tf_crop_and_resize along the axis, from 0 to 1.
    """

    axis: int
    size: Any
    out: Any
    scale: Any = None
    part: tuple[Any, Any] = (0.0, 1.0)

    @property
    def known(self) -> bool:
        """Whether all of it is known now."""
        return all(isinstance(v, int | float | None) for v in (self.size, self.out, self.scale, *self.part))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pixels are taken: ONNX's attributes of Resize; "simple" is how Upsample and Resize 10 round."""

    mode: str
    place: str
    rounding: str
    cubic: float
    exclude_outside: bool
    antialias: bool


def now(function: Callable[..., Any], *arguments: Any) -> np.ndarray:
    """What a function of known numbers computes."""
    with tf.init_scope():
        return np.asarray(function(*arguments))


def coordinates(change: Change, place: str) -> Any:
    """Where each element of the output lies on the axis of the input, in float32, as ONNX Runtime computes it."""
    i, before, after = (tf.cast(v, tf.float32) for v in (tf.range(change.out), change.size, change.out))
    scale = after / before if change.scale is None else tf.cast(change.scale, tf.float32)
    if place == "asymmetric":
        return i / scale
    if place == "align_corners":
        return i * (before - 1.0) / tf.maximum(after - 1.0, 1.0)
    if place == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if place == "tf_crop_and_resize":
        low, high = (tf.cast(end, tf.float32) for end in change.part)
        spread = low * (before - 1.0) + i * (high - low) * (before - 1.0) / tf.maximum(after - 1.0, 1.0)
        return tf.where(after > 1.0, spread, 0.5 * (low + high) * (before - 1.0) + i)
    centres = (i + 0.5) / scale - 0.5
    if place == "half_pixel_symmetric":
        return before / 2.0 * (1.0 - after / (scale * before)) + centres
    return tf.where(after > 1.0, centres, tf.zeros_like(centres)) if place == "pytorch_half_pixel" else centres


def nearest(change: Change, how: Sampling) -> Any:
    """For each element of the output, the place of the input's that it repeats."""
    at, rounding = coordinates(change, how.place), how.rounding
    if rounding == "simple":
        shrinks = change.scale is not None and not tf.is_tensor(change.scale) and change.scale < 1
        rounding = "ceil" if shrinks else "floor"
    down = tf.floor(at)
    if rounding == "ceil":
        near = tf.math.ceil(at)
    elif rounding == "floor":
        near = down
    else:
        up = at - down >= 0.5 if rounding == "round_prefer_ceil" else at - down > 0.5
        near = tf.where(up, down + 1.0, down)
    return tf.clip_by_value(tf.cast(near, tf.int32), 0, change.size - 1)


def resampled(t: Any, axis: int, change: Change, how: Sampling) -> Any:
    """A tensor with one of its own axes resized."""
    if how.mode == "nearest":
        return tf.gather(t, now(nearest, change, how) if change.known else nearest(change, how), axis=axis)
    if how.antialias:
        return by_table(t, axis, antialiased(change, how))
    total = None
    for tap in range(2 if how.mode == "linear" else 4):
        if change.known:
            place, weight = now(neighbour, change, how, tap)
            place = place.astype(np.int32)
        else:
            place, weight = neighbour(change, how, tap)
            place = tf.cast(place, tf.int32)
        weight = tf.reshape(weight, [-1 if a == axis else 1 for a in range(t.shape.rank)])
        part = tf.gather(t, place, axis=axis) * weight
        total = part if total is None else total + part
    return total


def neighbour(change: Change, how: Sampling, tap: int) -> tuple[Any, Any]:
    """For each element of the output, the place of its neighbour number `tap` in the input, and its weight."""
    at, last = coordinates(change, how.place), tf.cast(change.size, tf.float32) - 1.0
    if how.mode == "linear":
        at = tf.clip_by_value(at, 0.0, last)
        base = tf.floor(at)
        return tf.minimum(base + tap, last), (at - base if tap else 1.0 - (at - base))
    base = tf.floor(at)
    places = [base + (k - 1) for k in range(4)]
    weights = [cubic_weight(tf.abs(at - place), how.cubic) for place in places]
    if how.exclude_outside:
        inside = [tf.cast((place >= 0.0) & (place <= last), tf.float32) for place in places]
        weights = [w * i for w, i in zip(weights, inside, strict=True)]
        weights = [w / tf.add_n(weights) for w in weights]
    return tf.clip_by_value(places[tap], 0.0, last), weights[tap]


def cubic_weight(distance: Any, a: float) -> Any:
    """Keys' kernel, with ONNX's cubic_coeff_a."""
    d = distance
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return tf.where(d <= 1.0, near, tf.where(d < 2.0, far, tf.zeros_like(d)))


def antialiased(change: Change, how: Sampling) -> np.ndarray:
    """[out, size]: the weight of every element of the input; where it shrinks, the kernel is as much wider.

    Raises:
        AtRunTime: A size is free.
    """
    if not change.known:
        raise AtRunTime("a Resize with antialias of free sizes")
    scale = change.out / change.size if change.scale is None else change.scale
    spread = max(1.0, 1 / scale)
    reach = math.ceil((1 if how.mode == "linear" else 2) * spread) + 1
    at = now(coordinates, change, how.place).astype(np.float64)
    places = np.floor(at)[:, None] + np.arange(-reach, reach + 1)
    distance = np.abs(at[:, None] - places) / spread
    weights = np.maximum(0, 1 - distance) if how.mode == "linear" else now(cubic_weight, distance, how.cubic)
    if how.exclude_outside:
        weights = weights * ((places >= 0) & (places < change.size))
    table = np.zeros((change.out, change.size))
    rows = np.broadcast_to(np.arange(change.out)[:, None], places.shape)
    np.add.at(table, (rows, np.clip(places, 0, change.size - 1).astype(int)), weights)
    return (table / table.sum(1, keepdims=True)).astype(np.float32)


def by_table(t: Any, axis: int, table: np.ndarray) -> Any:
    """Every element of the output as a weighted sum along an axis of the input."""
    order = [a for a in range(t.shape.rank) if a != axis] + [axis]
    return tf.transpose(tf.matmul(tf.transpose(t, order), tf.constant(table.T)), np.argsort(order))


def extrapolated(t: Any, x: Value, moving: Sequence[Change], how: Sampling, value: float) -> Any:
    """tf_crop_and_resize: elements outside of the input have one value."""
    for change in moving:
        at = coordinates(change, how.place)
        inside = (at >= 0.0) & (at <= tf.cast(change.size, tf.float32) - 1.0)
        place = x.perm.index(change.axis)
        inside = tf.reshape(inside, [-1 if a == place else 1 for a in range(x.rank)])
        t = tf.where(inside, t, tf.constant(value, tf.float32))
    return t
