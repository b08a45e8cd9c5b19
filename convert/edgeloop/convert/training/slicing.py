"""`x[key]` with a gradient out of RESHAPE, PAD and SLICE; StridedSliceGrad exists only in Flex."""

from __future__ import annotations

import math
from typing import Any

from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any


def check_key(op: Any, key: Any) -> None:
    """Raises: ModelError: `key` holds a tensor, or a slice with a step below 1."""
    for part in _parts(key):
        bounds = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
        if not all(b is None or b is Ellipsis or isinstance(b, int) for b in bounds):
            raise layer_refusal(op, "takes elements by a tensor", "Use slices of fixed numbers.")
        if isinstance(part, slice) and (part.step or 1) < 1:
            raise layer_refusal(op, f"takes a slice with the step {part.step}", "Use a step of 1 or more.")


def take(x: Tensor, key: Any) -> Tensor:
    """`x[key]` of a tensor with static dimensions: numbers, slices with positive steps, None and Ellipsis."""
    parts = _spread(_parts(key), len(x.shape))
    ranges, shape, axis = [], [], 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        size = x.shape[axis]
        taken = range(size)[part] if isinstance(part, slice) else range(size)[part : part + 1 or None]
        shape += [len(taken)] if isinstance(part, slice) else []
        ranges.append(taken)
        axis += 1
    return tf.reshape(_window(x, ranges), shape)


def _window(x: Tensor, ranges: list[range]) -> Tensor:
    """The elements at `ranges`, one for each axis."""

    @tf.custom_gradient
    def window(x: Tensor) -> Any:
        return x[tuple(slice(r.start, r.stop, r.step) for r in ranges)], lambda dy: _placed(dy, x.shape, ranges)

    return window(x)


def _placed(dy: Tensor, shape: Any, ranges: list[range]) -> Tensor:
    """`dy` at `ranges` of zeros of `shape`, one axis after the other."""
    for axis, (taken, size) in enumerate(zip(ranges, shape, strict=True)):
        if len(taken) == size:
            continue
        before, after = math.prod(dy.shape[:axis]), math.prod(dy.shape[axis + 1 :])
        if taken.step > 1:
            stuffed = tf.pad(
                tf.reshape(dy, [before, len(taken), 1, after]), [[0, 0], [0, 0], [0, taken.step - 1], [0, 0]]
            )
            dy = tf.reshape(stuffed, [before, len(taken) * taken.step, after])
            reach = (len(taken) - 1) * taken.step + 1
            flat = tf.slice(dy, [0, 0, 0], [-1, reach, -1])
        else:
            reach = len(taken)
            flat = tf.reshape(dy, [before, reach, after])
        flat = tf.pad(flat, [[0, 0], [taken.start, size - taken.start - reach], [0, 0]])
        dy = tf.reshape(flat, [*shape[:axis], size, *(len(r) for r in ranges[axis + 1 :])])
    return dy


def _parts(key: Any) -> tuple:
    return tuple(key) if isinstance(key, (tuple, list)) else (key,)


def _spread(parts: tuple, rank: int) -> list:
    """With slices in the place of Ellipsis and of axes not named."""
    named = sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * (rank - named)
    if Ellipsis not in parts:
        return [*parts, *rest]
    place = parts.index(Ellipsis)
    return [*parts[:place], *rest, *parts[place + 1 :]]
