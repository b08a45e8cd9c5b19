"""Sliding windows over images, out of PAD, SLICE, RESHAPE and CONCATENATION: what convolutions and pooling share.

Images are float32 [batch, height, width, channels] with static height, width and channels. Strided slices appear only
inside custom gradients, where nothing differentiates them again: StridedSliceGrad exists only in Flex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any


@dataclass(frozen=True, slots=True)
class WindowAxis:
    """A window that slides along one axis of an image.

    Attributes:
        size: Pixels, before padding.
        window: Taps of the window, `dilation` pixels apart.
        pads: Pixels added before and after.
        out: Positions of the window, `stride` pixels apart.
    """

    size: int
    window: int
    stride: int
    dilation: int
    pads: tuple[int, int]
    out: int

    @property
    def reach(self) -> int:
        """Pixels from the first tap to the last, both included."""
        return (self.window - 1) * self.dilation + 1

    @property
    def seen(self) -> int:
        """Padded pixels from the first tap of the first position to the last tap of the last."""
        return (self.out - 1) * self.stride + self.reach

    def slices(self) -> list[slice]:
        """For each tap, the padded pixels it meets."""
        last = (self.out - 1) * self.stride + 1
        return [slice(i * self.dilation, i * self.dilation + last, self.stride) for i in range(self.window)]

    def transposed(self) -> WindowAxis:
        """The same window over the zero-stuffed output: from gradients of the output to those of what was seen."""
        outside = self.reach - 1
        return WindowAxis(self.seen - outside, self.window, 1, self.dilation, (outside, outside), self.seen)


def axis(size: int, window: int, stride: int, padding: str, dilation: int = 1) -> WindowAxis:
    """`padding` "same" or "valid" as TensorFlow defines them: https://www.tensorflow.org/api_docs/python/tf/nn"""
    reach = (window - 1) * dilation + 1
    if padding == "valid":
        return WindowAxis(size, window, stride, dilation, (0, 0), (size - reach) // stride + 1)
    out = -(-size // stride)
    total = max((out - 1) * stride + reach - size, 0)
    return WindowAxis(size, window, stride, dilation, (total // 2, total - total // 2), out)


def pad(x: Tensor, rows: tuple[int, int], cols: tuple[int, int], value: float = 0.0) -> Tensor:
    if not any((*rows, *cols)):
        return x
    return tf.pad(x, [[0, 0], rows, cols, [0, 0]], constant_values=value)


def taps(x: Tensor, rows: WindowAxis, cols: WindowAxis) -> list[Tensor]:
    """For each tap, row by row, the image of what it meets in the padded `x`: [batch, out, out, channels]."""
    return [x[:, r, c, :] for r in rows.slices() for c in cols.slices()]


def im2col(x: Tensor, rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """[batch * out * out, window * window * channels] of the padded `x`."""
    parts = taps(x, rows, cols)
    wide = tf.concat(parts, -1) if len(parts) > 1 else parts[0]
    return tf.reshape(wide, [-1, wide.shape[-1]])


def insert_zeros(dy: Tensor, rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """stride - 1 zeros between neighbours, none after the last: reshape and PAD only, at most four dimensions."""
    _, h, w, c = dy.shape
    sh, sw = rows.stride, cols.stride
    if sw > 1:
        dy = tf.pad(tf.reshape(dy, [-1, w, 1, c]), [[0, 0], [0, 0], [0, sw - 1], [0, 0]])
    if sh > 1:
        dy = tf.pad(tf.reshape(dy, [-1, h, 1, w * sw * c]), [[0, 0], [0, 0], [0, sh - 1], [0, 0]])
    dy = tf.reshape(dy, [-1, h * sh, w * sw, c])
    return tf.slice(dy, [0, 0, 0, 0], [-1, (h - 1) * sh + 1, (w - 1) * sw + 1, -1])


def scatter(parts: list[Tensor], rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """The adjoint of `pad`, then `taps`: every stuffed image added to the pixels it met, [batch, size, size, c]."""
    places = [(i * rows.dilation, j * cols.dilation) for i in range(rows.window) for j in range(cols.window)]
    spread = [
        pad(part, (i, rows.reach - 1 - i), (j, cols.reach - 1 - j)) for (i, j), part in zip(places, parts, strict=True)
    ]
    return unpad(sum(spread[1:], spread[0]), rows, cols)


def unpad(dx: Tensor, rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """Gradient of what was seen to that of the input: what no window reached gets zero, what was padding goes."""
    missing = [max(0, a.pads[0] + a.size - n) for a, n in ((rows, dx.shape[1]), (cols, dx.shape[2]))]
    dx = pad(dx, (0, missing[0]), (0, missing[1]))
    return tf.slice(dx, [0, rows.pads[0], cols.pads[0], 0], [-1, rows.size, cols.size, -1])


def interleave(parts: list[Tensor], rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """`scatter` of images not yet stuffed, where windows neither overlap nor leave a rest: no addition, one copy."""
    _, h, w, c = parts[0].shape
    ph, pw = rows.window, cols.window
    lines = [tf.reshape(tf.concat(parts[i * pw : (i + 1) * pw], -1), [-1, h, 1, w * pw * c]) for i in range(ph)]
    return tf.reshape(tf.concat(lines, 2), [-1, h * ph, w * pw, c])
