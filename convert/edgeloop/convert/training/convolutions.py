"""Convolutions of images whose gradients lower to builtin TFLite ops.

TensorFlow's own gradients (Conv2DBackpropFilter, DepthwiseConv2dNativeBackpropFilter, ...) exist only in Flex, which
none of the device runtimes carries. Each function equals TensorFlow's op forward and backward.
"""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.convolution_forms import FEW_CHANNELS, InGroups, Lowering, OfPatches, OfPlanes, Pointwise
from edgeloop.convert.training.convolution_tiles import OUTPUTS, OfTiles
from edgeloop.convert.training.windows import added, axis, scatter, taps
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
Pair = tuple[int, int]


def conv2d(x: Tensor, w: Tensor, stride: Pair, padding: str, dilation: Pair = (1, 1)) -> Tensor:
    """Cross-correlation with `w` [kh, kw, in, out]; `padding` "same" or "valid" as TensorFlow defines them."""
    lowering = _lowering(x.shape, w, stride, padding, dilation)

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        kernel = lowering.kernel(w)
        y, seen = lowering.forward(x, kernel)
        return y, lambda dy: (lowering.spread(dy, kernel), lowering.weigh(seen, dy))

    return product(x, w)


def conv2d_transpose(x: Tensor, w: Tensor, size: Pair, stride: Pair, padding: str, dilation: Pair = (1, 1)) -> Tensor:
    """The adjoint of `conv2d` of an image of `size` (height, width), with `w` [kh, kw, out, in]."""
    lowering = _lowering((x.shape[0], *size, w.shape[2]), w, stride, padding, dilation)

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        kernel = lowering.kernel(w)

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            dx, seen = lowering.forward(dy, kernel)
            return dx, lowering.weigh(seen, x)

        return lowering.spread(x, kernel), gradient

    return product(x, w)


def _lowering(shape: Any, w: Tensor, stride: Pair, padding: str, dilation: Pair) -> Lowering:
    """What computes the convolution of an image of `shape` fastest."""
    batch, height, width, channels = shape
    kh, kw, _, filters = w.shape
    rows = axis(height, kh, stride[0], padding, dilation[0])
    cols = axis(width, kw, stride[1], padding, dilation[1])
    if (kh, kw) == (1, 1) and stride == (1, 1):
        return Pointwise()
    if channels <= FEW_CHANNELS:
        return OfPlanes(rows, cols, channels, filters)
    if stride == (1, 1) and dilation[0] == 1 and rows.out >= OUTPUTS.get(kh, rows.out + 1):
        return InGroups.of(OfTiles(rows, cols, channels, filters), batch)
    return OfPatches(rows, cols, channels, filters)


def depthwise_conv2d(x: Tensor, w: Tensor, stride: Pair, padding: str, dilation: Pair = (1, 1)) -> Tensor:
    """`w` [kh, kw, channels, multiplier]: output channel c * multiplier + m is channel c by filter m."""
    kh, kw, channels, multiplier = w.shape
    if multiplier > 1:
        _, height, width, _ = x.shape
        copies = tf.concat([tf.reshape(x, [-1, channels, 1])] * multiplier, -1)
        x = tf.reshape(copies, [-1, height, width, channels * multiplier])
        w = tf.reshape(w, [kh, kw, channels * multiplier, 1])
    rows = axis(x.shape[1], kh, stride[0], padding, dilation[0])
    cols = axis(x.shape[2], kw, stride[1], padding, dilation[1])

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        # DEPTHWISE_CONV_2D with a variable filter is not XNNPACK's: a product for each tap takes less time
        parts, filters = taps(x, rows, cols), _filters(w)
        y = added([part * f for part, f in zip(parts, filters, strict=True)])

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            sums = [tf.reshape(tf.reduce_sum(part * dy, [0, 1, 2]), [1, -1]) for part in parts]
            dw = tf.reshape(tf.concat(sums, 0), w.shape)
            if stride != (1, 1):
                return scatter([dy * f for f in filters], rows, cols), dw
            met = taps(dy, rows.adjoint(), cols.adjoint())
            return added([part * f for part, f in zip(met, reversed(filters), strict=True)]), dw

        return y, gradient

    return product(x, w)


def _filters(w: Tensor) -> list[Tensor]:
    """The filter's taps, [1, 1, 1, channels] each, row by row."""
    kh, kw, channels, _ = w.shape
    flat = tf.reshape(w, [kh * kw, channels])
    return [tf.reshape(tf.slice(flat, [i, 0], [1, channels]), [1, 1, 1, channels]) for i in range(kh * kw)]
