"""Convolutions with fewer multiplications: a few rows of the output at a time, a tile, by toom_cook.py.

Along the columns the pixels of a window lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.convert.training.convolution_forms import channel_blocks
from edgeloop.convert.training.products import matmul
from edgeloop.convert.training.toom_cook import matrices, transform
from edgeloop.convert.training.windows import WindowAxis, added, cut, joined, pad, scatter, taps
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
OUTPUTS = {2: 3, 3: 2, 4: 2, 5: 2}  # rows of taps: rows of the output at a time


@dataclass(frozen=True, slots=True)
class OfTiles:
    """A `Lowering` for the stride 1 and rows of taps next to each other, as many as OUTPUTS has."""

    rows: WindowAxis
    cols: WindowAxis
    channels: int
    filters: int

    @property
    def numbers(self) -> int:
        """Of the largest operand of a product, for each image."""
        return self._tiles * self.cols.out * max(self.cols.window * self.channels, self.filters)

    @property
    def _outputs(self) -> int:
        return OUTPUTS[self.rows.window]

    @property
    def _points(self) -> int:
        return self._outputs + self.rows.window - 1

    @property
    def _tiles(self) -> int:
        return -(-self.rows.out // self._outputs)

    @property
    def _line(self) -> WindowAxis:
        """A tile's row, which no window slides over."""
        return WindowAxis(self._tiles, 1, 1, 1, (0, 0), self._tiles)

    def kernel(self, w: Tensor) -> list[Tensor]:
        """A matrix [1, 1, kw * channels, filters] for each point."""
        _, g, _ = matrices(self._outputs, self.rows.window)
        k, size = self.cols.window * self.channels, self.cols.window * self.channels * self.filters
        points = matmul(tf.constant(g.astype(np.float32)), tf.reshape(w, [self.rows.window, size]))
        return [tf.reshape(tf.slice(points, [i, 0], [1, size]), [1, 1, k, self.filters]) for i in range(self._points)]

    def forward(self, x: Tensor, kernel: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        at, _, bt = matrices(self._outputs, self.rows.window)
        batch, m, padded, seen, products = x.shape[0], self._outputs, self.cols.padded(), [], []
        for image, k in zip(transform(bt, self._lines(x)), kernel, strict=True):  # a point at a time: it stays cached
            image = tf.reshape(image, [batch, self._tiles, padded.size, self.channels])
            seen.append(joined(taps(image, self._line, padded), -1))
            products.append(matmul(seen[-1], k))
        width = self.cols.out * self.filters
        parts = [tf.reshape(y, [batch * self._tiles, 1, width]) for y in transform(at, products)]
        y = tf.reshape(joined(parts, 1), [batch, self._tiles * m, self.cols.out, self.filters])
        return cut(y, (0, batch), (0, self.rows.out)), seen

    def spread(self, dy: Tensor, kernel: list[Tensor]) -> Tensor:
        _, _, bt = matrices(self._outputs, self.rows.window)
        batch, m, n = dy.shape[0], self._outputs, self._points
        width, images = self.cols.size * self.channels, []
        for d, k in zip(self._points_of(dy), kernel, strict=True):
            back = scatter(channel_blocks(matmul(d, k, transpose_b=True), self.channels), self._line, self.cols)
            images.append(tf.reshape(back, [batch, self._tiles, width]))
        last = (n - 1) // m
        lines = [tf.pad(v, [[0, 0], [s // m, last - s // m], [0, 0]]) for s, v in enumerate(transform(bt.T, images))]
        each = [tf.reshape(added(lines[s::m]), [batch, self._tiles + last, 1, width]) for s in range(m)]
        dx = tf.reshape(joined(each, 2), [batch, (self._tiles + last) * m, self.cols.size, self.channels])
        first = self.rows.pads[0]
        dx = pad(dx, (0, max(0, first + self.rows.size - dx.shape[1])), (0, 0))
        return cut(dx, (0, batch), (first, first + self.rows.size))

    def weigh(self, seen: list[Tensor], dy: Tensor) -> Tensor:
        _, g, _ = matrices(self._outputs, self.rows.window)
        k, parts = self.cols.window * self.channels, []
        for patches, d in zip(seen, self._points_of(dy), strict=True):
            dk = matmul(tf.reshape(patches, [-1, k]), tf.reshape(d, [-1, self.filters]), transpose_a=True)
            parts.append(tf.reshape(dk, [1, k * self.filters]))
        dw = matmul(tf.constant(g.astype(np.float32)), joined(parts, 0), transpose_a=True)
        return tf.reshape(dw, [self.rows.window, self.cols.window, self.channels, self.filters])

    def _lines(self, x: Tensor) -> list[Tensor]:
        """For each of the n rows that a tile meets, those of all tiles: [batch, tiles, 1, width * channels]."""
        m, n, (before, _) = self._outputs, self._points, self.rows.pads
        batch, height, width, channels = x.shape
        blocks = self._tiles + (n - 1) // m
        x = pad(x, (before, max(0, blocks * m - before - height)), self.cols.pads)
        x = tf.reshape(cut(x, (0, batch), (0, blocks * m)), [batch, blocks, m, sum(self.cols.pads, width) * channels])
        ranges = [divmod(s, m) for s in range(n)]
        return [cut(x, (0, batch), (q, q + self._tiles), (r, r + 1)) for q, r in ranges]

    def _points_of(self, dy: Tensor) -> Sequence[Tensor]:
        """The output's gradient at each point: [batch, tiles, out, filters]."""
        at, _, _ = matrices(self._outputs, self.rows.window)
        batch, m, width = dy.shape[0], self._outputs, self.cols.out * self.filters
        dy = pad(dy, (0, self._tiles * m - self.rows.out), (0, 0))
        dy = tf.reshape(dy, [batch * self._tiles, m, width])
        parts = [cut(dy, (0, batch * self._tiles), (t, t + 1)) for t in range(m)]
        parts = [tf.reshape(part, [batch, self._tiles, self.cols.out, self.filters]) for part in parts]
        return transform(at.T, parts)
