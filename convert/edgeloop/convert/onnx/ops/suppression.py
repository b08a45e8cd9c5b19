"""NonMaxSuppression, by LiteRT's kernel of that name.

Sources
    operator  https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html (10, 11)
    kernel    tensorflow/lite/kernels/non_max_suppression.cc
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.repetition import Repetition
from edgeloop.convert.onnx.value import Value, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

UNROLLED_CLASSES = 8  # of batch * classes: fewer become straight code, more a WHILE
LEAST = float(np.finfo(np.float32).tiny)


def non_max_suppression(
    n: Node,
    boxes: Value,
    scores: Value,
    most: Value | None = None,
    iou: Value | None = None,
    least: Value | None = None,
) -> Value:
    """NonMaxSuppression (ONNX 10, 11): rows of (batch, class, box), by batch, by class, by falling score.

    LiteRT's kernel works on one class and pads its result, which is cut to the real count here. Equal scores come out
    of its heap in any order (0 2 5 4 1 3 was seen), ONNX takes the first box first: so boxes are sorted beforehand, and
    the kernel gets their ranks for scores. It suppresses at an IOU of the threshold or above, ONNX above it.
    """
    if most is None:  # by default no box is taken
        return Value(const=np.zeros((0, 3), np.int64))
    corners, least_iou = _corners(boxes.onnx(), bool(n.attr("center_point_box", 0))), _threshold(iou)
    corners = _apart(corners, every=least_iou is None)
    least_iou = LEAST if least_iou is None else least_iou
    count, lowest = size(scores.onnx(), 2), -float(np.finfo(np.float32).max)
    if least is not None:  # no more boxes than the class with most of them has: 8,400 of 80 classes took 0.26 s to sort
        lowest = tf.reshape(least.onnx(), [])
        passing = tf.reduce_sum(tf.cast(scores.onnx() > lowest, tf.int32), -1)
        count = tf.maximum(tf.reduce_max(passing), 1)
    ordered = tf.math.top_k(scores.onnx(), count)
    kept = ordered.values > lowest
    ranks = tf.where(kept, tf.cast(count - tf.range(count), tf.float32), -1.0)
    chosen, taken = _every_class(corners, ordered.indices, ranks, _limit(most, count), least_iou)
    classes, longest = size(scores.onnx(), 1), tf.shape(chosen)[1]
    real = tf.cast(tf.where(tf.range(longest)[None, :] < taken[:, None]), tf.int32)  # row by row: (batch and class, k)
    box, group = tf.gather_nd(chosen, real), real[:, 0]
    rows = [tf.math.floordiv(group, classes), tf.math.floormod(group, classes), box]
    return Value(tf.stack(rows, 1), np.int64)


def _corners(boxes: Any, by_center: bool) -> Any:
    """[batch, boxes, 4] as (low, low, high, high): ONNX takes any two corners that lie across."""
    if boxes.shape[-1] is None:  # the kernel wants it said
        boxes = tf.reshape(boxes, tf.stack([tf.shape(boxes)[0], -1, 4]))
    a, b = boxes[..., :2], boxes[..., 2:]
    low, high = (a - b / 2.0, a + b / 2.0) if by_center else (tf.minimum(a, b), tf.maximum(a, b))
    return tf.concat([low, high], -1)


def _apart(corners: Any, every: bool) -> Any:
    """Boxes without an area (or every one) moved to where they overlap none, as ONNX means it.

    LiteRT's kernel takes a box out by its IOU with itself, which is 0 without an area: it would be chosen for ever.
    """
    sides = corners[..., 2:] - corners[..., :2]  # below 0 where a width around a centre is
    area = sides[..., :1] * sides[..., 1:]
    flat = tf.minimum(tf.reduce_min(sides, -1, keepdims=True), area) <= 0.0
    free = tf.math.ceil(tf.reduce_max(corners)) + 1.0 + 2.0 * tf.cast(tf.range(tf.shape(corners)[1]), tf.float32)
    low = tf.stack([free, free, free + 1.0, free + 1.0], -1)
    return tf.where(tf.logical_or(flat, every), low[None], corners)


def _limit(most: Value, count: Any) -> Any:
    """Boxes a class at most: a number where everything is known."""
    if most.const is not None:
        known = int(np.clip(most.const.item(), 0, 2**31 - 1))
        return min(known, count) if isinstance(count, int) else tf.minimum(known, count)
    return tf.minimum(tf.reshape(most.onnx(), []), count)


def _threshold(iou: Value | None) -> Any:
    """The least IOU that suppresses: the next number above ONNX's threshold; None where that is above 1."""
    if iou is None:
        return LEAST
    if iou.const is not None:
        above = max(float(np.nextafter(np.float32(iou.const.item()), np.float32(2))), LEAST)
        return above if above <= 1 else None
    return tf.clip_by_value(tf.reshape(iou.onnx(), []) * (1.0 + 2.0**-23), LEAST, 1.0)


def _every_class(corners: Any, places: Any, ranks: Any, limit: Any, threshold: Any) -> tuple[Any, Any]:
    """The boxes that are taken [batch * classes, limit], padded, and how many of each row are real."""
    batch, classes, count = size(places, 0), size(places, 1), size(places, 2)
    places, ranks = tf.reshape(places, [-1, count]), tf.reshape(ranks, [-1, count])

    def one(group: Any, place: Any, rank: Any) -> tuple[Any, Any]:
        of = tf.gather(corners, group // classes if isinstance(group, int) else tf.math.floordiv(group, classes))
        found, real = tf.raw_ops.NonMaxSuppressionV4(
            boxes=tf.gather(of, place),
            scores=rank,
            max_output_size=limit,
            iou_threshold=threshold,
            score_threshold=0.0,
            pad_to_max_output_size=True,
        )
        return tf.gather(place, found), real

    groups = batch * classes
    if isinstance(groups, int) and groups <= UNROLLED_CLASSES:
        pairs = [one(g, places[g], ranks[g]) for g in range(groups)]
        return tf.stack([p[0] for p in pairs]), tf.stack([p[1] for p in pairs])

    def turn(i: Any, parts: list, states: list) -> tuple[list, list]:
        return [], list(one(i, *parts))

    wide = limit if isinstance(limit, int) else None
    empty = [tf.zeros([1, limit], tf.int32), tf.zeros([1], tf.int32)]
    _, rows = Repetition(turn, [places, ranks], [], [[wide], []], chunk=UNROLLED_CLASSES).run(groups, [], empty)
    return rows[0], rows[1]


OPS = {"NonMaxSuppression": non_max_suppression}
