"""Sliding windows over images, out of PAD, SLICE, RESHAPE and CONCATENATION: what convolutions and pooling share.

Images are float32 [batch, height, width, channels] with static dimensions. Every slice has the stride 1: XNNPACK takes
no other, and the runtimes' own kernel for them takes 50 times as long.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
Range = tuple[int, int]
JOINED = 5  # tensors that XNNPACK concatenates at once


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
    def blocks(self) -> int:
        """Groups of `stride` pixels that hold the image."""
        return -(-self.size // self.stride)

    def tap(self, i: int) -> Range:
        """(q, r): position o of the window meets with tap i the pixel r of group o + q of the image, before padding."""
        return divmod(i * self.dilation - self.pads[0], self.stride)

    def padded(self) -> WindowAxis:
        """The same window over the image with its padding."""
        return replace(self, size=self.size + sum(self.pads), pads=(0, 0))

    def adjoint(self) -> WindowAxis:
        """Of a stride of 1: the mirrored window over the output, which meets at each pixel what had met that pixel."""
        before = self.reach - 1 - self.pads[0]
        return WindowAxis(
            self.out, self.window, 1, self.dilation, (before, self.size - self.out + self.pads[0]), self.size
        )


def axis(size: int, window: int, stride: int, padding: str, dilation: int = 1) -> WindowAxis:
    """`padding` "same" or "valid" as TensorFlow defines them: https://www.tensorflow.org/api_docs/python/tf/nn"""
    reach = (window - 1) * dilation + 1
    if padding == "valid":
        return WindowAxis(size, window, stride, dilation, (0, 0), (size - reach) // stride + 1)
    out = -(-size // stride)
    total = max((out - 1) * stride + reach - size, 0)
    return WindowAxis(size, window, stride, dilation, (total // 2, total - total // 2), out)


def pad(x: Tensor, rows: Range, cols: Range, value: float = 0.0) -> Tensor:
    if not any((*rows, *cols)):
        return x
    return tf.pad(x, [[0, 0], rows, cols, [0, 0]], constant_values=value)


def cut(x: Tensor, *ranges: Range) -> Tensor:
    """The elements of `x` in `ranges`, (start, stop) of its first axes; all of the others'."""
    whole = [(0, int(size)) for size in x.shape]
    ranges = (*ranges, *whole[len(ranges) :])
    if list(ranges) == whole:
        return x
    return tf.slice(x, [start for start, _ in ranges], [stop - start for start, stop in ranges])


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenated along `dim`, as many at a time as XNNPACK takes."""
    parts = list(parts)
    while len(parts) > 1:
        groups = [parts[i : i + JOINED] for i in range(0, len(parts), JOINED)]
        parts = [tf.concat(group, dim) if len(group) > 1 else group[0] for group in groups]
    return parts[0]


def added(terms: Sequence[Tensor]) -> Tensor:
    return reduce(operator.add, terms)


def taps(x: Tensor, rows: WindowAxis, cols: WindowAxis, outside: float = 0.0) -> list[Tensor]:
    """For each tap, row by row, the image of what it meets: [batch, out, out, channels]; `outside` is the padding."""
    batch, _, _, c = x.shape
    (top, h), (left, w) = (_frame(a) for a in (rows, cols))
    x = pad(x, (top, max(0, h - top - rows.size)), (left, max(0, w - left - cols.size)), outside)
    x = cut(x, (0, batch), (0, h), (0, w))
    if rows.stride == cols.stride == 1:
        return [
            cut(x, (0, batch), (r, r + rows.out), (s, s + cols.out))
            for r in range(0, rows.reach, rows.dilation)
            for s in range(0, cols.reach, cols.dilation)
        ]
    sh, sw = rows.stride, cols.stride
    grid, found = tf.reshape(x, [batch, h // sh, sh, w // sw, sw * c]), []
    for i in range(rows.window):
        q, r = divmod(i * rows.dilation, sh)
        for j in range(cols.window):
            p, s = divmod(j * cols.dilation, sw)
            part = cut(grid, (0, batch), (q, q + rows.out), (r, r + 1), (p, p + cols.out), (s * c, (s + 1) * c))
            found.append(tf.reshape(part, [batch, rows.out, cols.out, c]))
    return found


def _frame(a: WindowAxis) -> tuple[int, int]:
    """Pixels of padding before the image, and pixels of the groups of `stride` in which every tap lies."""
    last = (a.reach - 1) // a.stride + a.out
    return a.pads[0], last * a.stride


def scatter(parts: Sequence[Tensor], rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """The adjoint of `taps`: every part added to the pixels that its tap met, [batch, size, size, channels].

    The pixels that lie `stride` apart are summed as small images of their own, which are then interleaved.
    """
    placed: dict[tuple[int, int], list[Tensor]] = {}
    for (i, j), part in zip(_places(rows, cols), parts, strict=True):
        (q, r), (p, s) = rows.tap(i), cols.tap(j)
        placed.setdefault((r, s), []).append(_moved(part, (q, rows.blocks), (p, cols.blocks)))
    sums = {place: added(terms) for place, terms in placed.items()}
    batch, h, w, c = next(iter(sums.values())).shape
    lines = []
    for r in range(rows.stride):
        line = _interleaved([sums.get((r, s)) for s in range(cols.stride)], c)
        lines.append(None if line is None else tf.reshape(line, [batch, h, 1, w * cols.stride * c]))
    wide = _interleaved(lines, w * cols.stride * c)
    wide = tf.reshape(wide, [batch, h * rows.stride, w * cols.stride, c])
    return cut(wide, (0, batch), (0, rows.size), (0, cols.size))


def _places(rows: WindowAxis, cols: WindowAxis) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(rows.window) for j in range(cols.window))


def _moved(part: Tensor, *moves: tuple[int, int]) -> Tensor:
    """An image moved by (pixels, to a size of) along both axes; what leaves it goes, what enters is zero."""
    kept, pads = [], []
    for (q, size), out in zip(moves, part.shape[1:3], strict=True):
        q = max(-out, min(q, size))  # a tap may lie farther outside than the image is long: nothing of its part stays
        first, last = max(0, -q), min(out, size - q)
        kept.append((first, last))
        pads.append((first + q, size - last - q))
    return pad(cut(part, (0, part.shape[0]), *kept), pads[0], pads[1])


def _interleaved(parts: Sequence[Tensor | None], width: int) -> Tensor | None:
    """Joined along the last axis, with zeros of `width` in the place of each None; None for none but None."""
    known = [i for i, part in enumerate(parts) if part is not None]
    if not known:
        return None
    found: list[Tensor] = []
    for i, after in zip(known, [*known[1:], len(parts)], strict=True):
        part: Tensor = parts[i]
        gap = (0 if found else i * width, (after - i - 1) * width)
        found.append(tf.pad(part, [*[[0, 0]] * (len(part.shape) - 1), gap]) if any(gap) else part)
    return joined(found, -1)
