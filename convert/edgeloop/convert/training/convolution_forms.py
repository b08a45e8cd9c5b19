"""A convolution as products of matrices: which tensors are laid out how, so that the products take most of the time.

Measured for McMahan's CNN on x86-64 with XNNPACK, one thread: moving data took 80% of a step that gathered every patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.convert.training.products import CACHED, matmul
from edgeloop.convert.training.windows import WindowAxis, added, cut, joined, scatter, taps
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
FEW_CHANNELS = 4  # up to here patches are laid out plane by plane: rows of so few numbers are slow to copy
MOST_GROUPS = 4  # each has operators of its own, and a graph of many is slow to convert and to load


class Lowering(Protocol):
    """One way to compute a convolution and both of its adjoints. Images are [batch, height, width, channels]."""

    def kernel(self, w: Tensor) -> Any:
        """The filter [kh, kw, in, out] as `forward` and `spread` take it."""

    def forward(self, x: Tensor, kernel: Any) -> tuple[Tensor, Any]:
        """The convolution of `x`, and what `weigh` takes of it."""

    def spread(self, dy: Tensor, kernel: Any) -> Tensor:
        """The gradient of `x` from that of the output."""

    def weigh(self, seen: Any, dy: Tensor) -> Tensor:
        """The gradient of `w`."""


class Pointwise:
    """One tap, stride 1: a product of the image as it lies."""

    def kernel(self, w: Tensor) -> Tensor:
        return w

    def forward(self, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        return matmul(x, kernel), x

    def spread(self, dy: Tensor, kernel: Tensor) -> Tensor:
        return matmul(dy, kernel, transpose_b=True)

    def weigh(self, seen: Tensor, dy: Tensor) -> Tensor:
        return tf.reshape(matmul(_flat(seen), _flat(dy), transpose_a=True), [1, 1, seen.shape[-1], dy.shape[-1]])


@dataclass(frozen=True, slots=True)
class OfPatches:
    """Every window's pixels side by side, [batch, out, out, taps * channels]: for what no other form computes."""

    rows: WindowAxis
    cols: WindowAxis
    channels: int
    filters: int

    def kernel(self, w: Tensor) -> Tensor:
        return tf.reshape(w, [1, 1, -1, self.filters])

    def forward(self, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        patches = joined(taps(x, self.rows, self.cols), -1)
        return matmul(patches, kernel), patches

    def spread(self, dy: Tensor, kernel: Tensor) -> Tensor:
        return scatter(channel_blocks(matmul(dy, kernel, transpose_b=True), self.channels), self.rows, self.cols)

    def weigh(self, seen: Tensor, dy: Tensor) -> Tensor:
        return self._filter(matmul(_flat(seen), _flat(dy), transpose_a=True))

    def _filter(self, dw: Tensor) -> Tensor:
        return tf.reshape(dw, [self.rows.window, self.cols.window, self.channels, self.filters])


class OfPlanes(OfPatches):
    """The patches transposed, [taps * channels, batch * out * out]: a plane a tap, copied in whole lines."""

    def forward(self, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        batch, height, width, channels = x.shape
        planes = tf.transpose(x, [3, 0, 1, 2]) if channels > 1 else x
        planes = tf.reshape(planes, [channels * batch, height, width, 1])
        patches = joined([tf.reshape(tap, [channels, -1]) for tap in taps(planes, self.rows, self.cols)], 0)
        y = matmul(patches, tf.reshape(kernel, [-1, self.filters]), transpose_a=True)
        return tf.reshape(y, [batch, self.rows.out, self.cols.out, self.filters]), patches

    def weigh(self, seen: Tensor, dy: Tensor) -> Tensor:
        return self._filter(matmul(seen, _flat(dy)))


@dataclass(frozen=True, slots=True)
class InGroups:
    """Another form for a few images at a time, so that what one product takes and gives stays in a core's cache."""

    inner: Lowering
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, inner: Any, batch: int) -> Lowering:
        """`inner` itself where the whole batch fits."""
        count = min(MOST_GROUPS, batch, -(-batch * inner.numbers // CACHED))
        size = -(-batch // count)
        return inner if count == 1 else cls(inner, tuple((i, min(i + size, batch)) for i in range(0, batch, size)))

    def kernel(self, w: Tensor) -> Any:
        return self.inner.kernel(w)

    def forward(self, x: Tensor, kernel: Any) -> tuple[Tensor, Any]:
        done = [self.inner.forward(cut(x, group), kernel) for group in self.groups]
        return joined([y for y, _ in done], 0), [seen for _, seen in done]

    def spread(self, dy: Tensor, kernel: Any) -> Tensor:
        return joined([self.inner.spread(cut(dy, group), kernel) for group in self.groups], 0)

    def weigh(self, seen: Any, dy: Tensor) -> Tensor:
        parts = zip(seen, self.groups, strict=True)
        return added([self.inner.weigh(part, cut(dy, group)) for part, group in parts])


def channel_blocks(x: Tensor, channels: int) -> list[Tensor]:
    """An image [batch, height, width, n * channels] as n images."""
    whole = [(0, int(size)) for size in x.shape[:3]]
    return [cut(x, *whole, (i, i + channels)) for i in range(0, x.shape[-1], channels)]


def _flat(x: Tensor) -> Tensor:
    return tf.reshape(x, [-1, x.shape[-1]])
