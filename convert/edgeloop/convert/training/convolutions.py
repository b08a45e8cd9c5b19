"""Products whose gradients lower to builtin TFLite ops: dense, convolution, depthwise convolution.

TensorFlow's own gradients (Conv2DBackpropFilter, DepthwiseConv2dNativeBackpropFilter, ...) exist only in Flex, which
none of the device runtimes carries. Each function equals TensorFlow's op forward and backward.
"""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.windows import WindowAxis, axis, im2col, insert_zeros, pad, scatter, taps, unpad
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
Pair = tuple[int, int]


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """[m, k] @ [k, n]. Three dimensions make it BATCH_MATMUL, which XNNPACK takes with variable operands."""
    return tf.matmul(a[None], b[None], transpose_a=transpose_a, transpose_b=transpose_b)[0]


def dense(x: Tensor, w: Tensor) -> Tensor:
    """[..., k] @ [k, n]."""

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        return matmul(x, w), lambda dy: (matmul(dy, w, transpose_b=True), matmul(x, dy, transpose_a=True))

    if len(x.shape) == 2:
        return product(x, w)
    return tf.reshape(product(tf.reshape(x, [-1, x.shape[-1]]), w), [-1, *x.shape[1:-1], w.shape[-1]])


def conv2d(x: Tensor, w: Tensor, stride: Pair, padding: str, dilation: Pair = (1, 1)) -> Tensor:
    """Cross-correlation with `w` [kh, kw, in, out]; `padding` "same" or "valid" as TensorFlow defines them.

    One im2col serves the product forward and the filter's gradient; the input's gradient is the same product with
    the flipped filter over the zero-stuffed output gradient (Dumoulin and Visin 2016, arXiv:1603.07285, section 4).
    """
    kh, kw, channels, filters = w.shape
    rows = axis(x.shape[1], kh, stride[0], padding, dilation[0])
    cols = axis(x.shape[2], kw, stride[1], padding, dilation[1])

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        patches = im2col(pad(x, rows.pads, cols.pads), rows, cols)
        y = matmul(patches, tf.reshape(w, [kh * kw * channels, filters]))

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            dw = matmul(patches, tf.reshape(dy, [-1, filters]), transpose_a=True)
            return _spread(dy, w, rows, cols), tf.reshape(dw, w.shape)

        return tf.reshape(y, [-1, rows.out, cols.out, filters]), gradient

    return product(x, w)


def conv2d_transpose(x: Tensor, w: Tensor, size: Pair, stride: Pair, padding: str, dilation: Pair = (1, 1)) -> Tensor:
    """The adjoint of `conv2d` of an image of `size` (height, width), with `w` [kh, kw, out, in]."""
    kh, kw, filters, channels = w.shape
    rows = axis(size[0], kh, stride[0], padding, dilation[0])
    cols = axis(size[1], kw, stride[1], padding, dilation[1])

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            patches = im2col(pad(dy, rows.pads, cols.pads), rows, cols)
            dx = matmul(patches, tf.reshape(w, [kh * kw * filters, channels]))
            dw = matmul(patches, tf.reshape(x, [-1, channels]), transpose_a=True)
            return tf.reshape(dx, x.shape), tf.reshape(dw, w.shape)

        return _spread(x, w, rows, cols), gradient

    return product(x, w)


def _spread(dy: Tensor, w: Tensor, rows: WindowAxis, cols: WindowAxis) -> Tensor:
    """The image of which `conv2d` made `dy`, in the sense of a gradient: each output through the filter's taps."""
    kh, kw, channels, filters = w.shape
    down, across = rows.transposed(), cols.transposed()
    wide = pad(insert_zeros(dy, rows, cols), down.pads, across.pads)
    # one axis at a time: tflite-runtime 2.14's REVERSE_V2 reverses only one of two, silently
    flipped = tf.transpose(tf.reverse(tf.reverse(w, [0]), [1]), [0, 1, 3, 2])
    dx = matmul(im2col(wide, down, across), tf.reshape(flipped, [kh * kw * filters, channels]))
    return unpad(tf.reshape(dx, [-1, down.out, across.out, channels]), rows, cols)


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
        parts = taps(pad(x, rows.pads, cols.pads), rows, cols)
        filters = [tf.reshape(w[i, j], [1, 1, 1, -1]) for i in range(kh) for j in range(kw)]
        if dilation == (1, 1):
            y = tf.nn.depthwise_conv2d(x, w, [1, *stride, 1], padding.upper())
        else:  # lowered as SPACE_TO_BATCH_ND around the op, which is folded only where the filter is a constant
            terms = [part * f for part, f in zip(parts, filters, strict=True)]
            y = sum(terms[1:], terms[0])

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            dw = tf.stack([tf.reduce_sum(part * dy, [0, 1, 2]) for part in parts])
            wide = insert_zeros(dy, rows, cols)
            return scatter([wide * f for f in filters], rows, cols), tf.reshape(dw, w.shape)

        return y, gradient

    return product(x, w)
