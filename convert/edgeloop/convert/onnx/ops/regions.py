"""RoiAlign: boxes of an image, averaged over a small grid of samples each.

Sources
    operator  https://onnx.ai/onnx/operators/onnx__RoiAlign.html (10, 16, 22)
    method    He et al. 2017, Mask R-CNN (arXiv:1703.06870), section 3
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.repetition import Repetition
from edgeloop.convert.onnx.value import Unsupported, Value, channels_last, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

UNROLLED_SAMPLES = 16  # in a bin: fewer become straight code


@dataclass(frozen=True)
class Bins:
    """The bins of every box along one axis.

    Attributes:
        start: Where the box begins [boxes, 1], in elements of the image.
        width: Of a bin [boxes, 1].
        count: How many bins.
        length: Of the image, elements.
        samples: In a bin: a number, or one for each box [boxes, 1].
    """

    start: Any
    width: Any
    count: int
    length: Any
    samples: Any

    def corners(self, k: Any) -> list[tuple[Any, Any]]:
        """Sample k of every bin: the elements below and above, and their weights, both [boxes, bins]."""
        bins = tf.range(self.count, dtype=tf.float32)[None, :]
        samples, k = tf.cast(self.samples, tf.float32), tf.cast(k, tf.float32)
        at = self.start + bins * self.width + (k + 0.5) * self.width / tf.maximum(samples, 1.0)
        last = tf.cast(self.length - 1, tf.float32)
        inside = tf.logical_and(tf.logical_and(at >= -1.0, at <= last + 1.0), k < samples)
        at = tf.clip_by_value(at, 0.0, last)
        low = tf.floor(at)
        high, part, counts = tf.minimum(low + 1.0, last), at - low, tf.cast(inside, tf.float32)
        return [(tf.cast(low, tf.int32), (1.0 - part) * counts), (tf.cast(high, tf.int32), part * counts)]


def roi_align(n: Node, x: Value, rois: Value, batch: Value) -> Value:
    """RoiAlign (ONNX 10: no shift by half an element; 16, 22: coordinate_transformation_mode).

    With sampling_ratio 0 every box has its own number of samples: a WHILE takes as many as the largest box, and those
    beyond a box's own number have no weight. Mode max takes the largest of the weighted elements, as ONNX Runtime does.
    """
    mode = n.attr("mode", "avg")
    if mode not in ("avg", "max"):
        raise Unsupported(f"a RoiAlign in mode {mode}")
    t, vertical, horizontal = x.last(), _bins(n, x, rois, 0), _bins(n, x, rois, 1)
    flat = tf.reshape(t, [-1, size(t, 3)])
    first = (tf.reshape(batch.onnx(), [-1]) * (vertical.length * horizontal.length))[:, None, None]

    def sample(k: Any, total: Any) -> Any:
        across = samples[1]
        i, j = (k // across, k % across) if isinstance(k, int) else (tf.math.floordiv(k, across), k % across)
        for p, v in vertical.corners(i):
            for q, w in horizontal.corners(j):
                places = first + (p * horizontal.length)[:, :, None] + q[:, None, :]
                got = tf.gather(flat, places) * tf.expand_dims(v[:, :, None] * w[:, None, :], -1)
                total = got if total is None else total + got if mode == "avg" else tf.maximum(total, got)
        return total

    samples = [b.samples if isinstance(b.samples, int) else tf.reduce_max(b.samples) for b in (vertical, horizontal)]
    most = samples[0] * samples[1]
    if isinstance(most, int) and most <= UNROLLED_SAMPLES:
        total = None
        for k in range(most):
            total = sample(k, total)
    else:
        shape = [rois.dims[0], vertical.count, horizontal.count, x.dims[1]]
        zeros = tf.zeros(tf.stack([tf.shape(first)[0], vertical.count, horizontal.count, size(t, 3)]))
        start = zeros if mode == "avg" else zeros - 3.4e38
        turn = Repetition(lambda k, parts, states: ([sample(k, states[0])], []), [], [shape], [])
        total = turn.run(most, [start], [])[0][0]
    if mode == "avg":
        count = tf.cast(vertical.samples * horizontal.samples, tf.float32)
        total = total / tf.maximum(tf.reshape(count, [-1, 1, 1, 1]), 1.0)
    return Value(total, x.dtype, channels_last(4))


def _bins(n: Node, x: Value, rois: Value, axis: int) -> Bins:
    """Along height (0) or width (1); boxes are (x1, y1, x2, y2) on the scale that spatial_scale divides."""
    shifted = n.attr("coordinate_transformation_mode", "half_pixel" if n.opset >= 16 else "") == "half_pixel"
    scale, ratio = n.attr("spatial_scale", 1.0), n.attr("sampling_ratio", 0)
    count = n.attr("output_height" if axis == 0 else "output_width", 1)
    ends = rois.onnx() * scale - (0.5 if shifted else 0.0)
    x1, y1, x2, y2 = tf.split(tf.reshape(ends, [-1, 4]), 4, 1)
    start, length = (y1, y2 - y1) if axis == 0 else (x1, x2 - x1)
    length = length if shifted else tf.maximum(length, 1.0)
    width = length / float(count)
    samples = ratio if ratio > 0 else tf.cast(tf.math.ceil(width), tf.int32)
    return Bins(start, width, count, size(x.last(), 1 + axis), samples)


OPS = {"RoiAlign": roi_align}
