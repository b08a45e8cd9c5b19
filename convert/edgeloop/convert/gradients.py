"""Layer arithmetic whose GRADIENTS lower to builtin TFLite ops, so that a device without TensorFlow can train.

TensorFlow's own gradients of these ops (Conv2DBackpropFilter, MaxPoolGrad, ReluGrad, StridedSliceGrad, ...) exist
only in Flex, which none of the device runtimes carries. Every function here equals TensorFlow's op forward and
backward; strided slices appear only inside custom gradients, where nothing differentiates them again.
All tensors are float32, images are [batch, height, width, channels] with static sizes.
"""

from __future__ import annotations

from typing import Any

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any


@tf.custom_gradient
def relu(x: Tensor) -> Any:
    """max(x, 0). Written as a product: after `matmul(x, variable)` the converter silently drops a real RELU."""
    mask = tf.cast(x > 0.0, x.dtype)
    return x * mask, lambda dy: dy * mask


@tf.custom_gradient
def relu6(x: Tensor) -> Any:
    """min(max(x, 0), 6)."""
    above, below = tf.cast(x > 0.0, x.dtype), tf.cast(x < 6.0, x.dtype)
    return x * above * below + 6.0 * (1.0 - below), lambda dy: dy * above * below


def matmul(a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """[m, k] @ [k, n]. Three dimensions make it BATCH_MATMUL, which XNNPACK takes with variable operands."""
    return tf.matmul(a[None], b[None], transpose_a=transpose_a, transpose_b=transpose_b)[0]


def dense(x: Tensor, w: Tensor) -> Tensor:
    """[batch, k] @ [k, n]."""

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        return matmul(x, w), lambda dy: (matmul(dy, w, transpose_b=True), matmul(x, dy, transpose_a=True))

    return product(x, w)


def conv2d(x: Tensor, w: Tensor, stride: tuple[int, int], padding: str) -> Tensor:
    """Cross-correlation with `w` [kh, kw, in, out]; `padding` "same" or "valid" as TensorFlow defines them.

    One im2col serves the product forward and the filter's gradient; the input's gradient is the same product with
    the flipped filter over the zero-stuffed output gradient (Dumoulin and Visin 2016, arXiv:1603.07285, section 4).
    """
    kh, kw, channels, filters = w.shape
    rows, cols = _extent(x.shape[1], kh, stride[0], padding), _extent(x.shape[2], kw, stride[1], padding)

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        patches = _im2col(_pad(x, rows.pads, cols.pads), (kh, kw), stride, (rows.out, cols.out))
        y = matmul(patches, tf.reshape(w, [kh * kw * channels, filters]))

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            dw = matmul(patches, tf.reshape(dy, [-1, filters]), transpose_a=True)
            wide = _pad(_stuff(dy, stride), (kh - 1, kh - 1), (kw - 1, kw - 1))
            size = (rows.out - 1) * stride[0] + kh, (cols.out - 1) * stride[1] + kw
            # one axis at a time: tflite-runtime 2.14's REVERSE_V2 reverses only one of two, silently
            flipped = tf.transpose(tf.reverse(tf.reverse(w, [0]), [1]), [0, 1, 3, 2])
            taps = _im2col(wide, (kh, kw), (1, 1), size)
            dx = matmul(taps, tf.reshape(flipped, [kh * kw * filters, channels]))
            dx = tf.reshape(dx, [-1, *size, channels])
            return _unpad(dx, rows, cols), tf.reshape(dw, w.shape)

        return tf.reshape(y, [-1, rows.out, cols.out, filters]), gradient

    return product(x, w)


def depthwise_conv2d(x: Tensor, w: Tensor, stride: tuple[int, int], padding: str) -> Tensor:
    """One filter per channel, `w` [kh, kw, channels, 1]."""
    kh, kw, channels, _ = w.shape
    rows, cols = _extent(x.shape[1], kh, stride[0], padding), _extent(x.shape[2], kw, stride[1], padding)

    @tf.custom_gradient
    def product(x: Tensor, w: Tensor) -> Any:
        taps = _taps(_pad(x, rows.pads, cols.pads), (kh, kw), stride, (rows.out, cols.out))
        y = tf.nn.depthwise_conv2d(x, w, [1, *stride, 1], padding.upper())

        def gradient(dy: Tensor) -> tuple[Tensor, Tensor]:
            dw = tf.stack([tf.reduce_sum(tap * dy, [0, 1, 2]) for tap in taps])
            wide = _stuff(dy, stride)
            shifted = [
                _pad(wide * tf.reshape(w[i, j], [1, 1, 1, channels]), (i, kh - 1 - i), (j, kw - 1 - j))
                for i in range(kh)
                for j in range(kw)
            ]
            return _unpad(sum(shifted[1:], shifted[0]), rows, cols), tf.reshape(dw, w.shape)

        return y, gradient

    return product(x, w)


def max_pool(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Largest value of each window; windows do not overlap and fill the image.

    The gradient goes to the FIRST maximum of a window, as in TensorFlow. Splitting it between ties moved the loss
    by 0.19 within 50 steps of McMahan's MNIST CNN.
    """
    ph, pw = window

    @tf.custom_gradient
    def pool(x: Tensor) -> Any:
        y = tf.nn.max_pool2d(x, window, window, "VALID")

        def gradient(dy: Tensor) -> Tensor:
            left, parts = dy, []
            for tap in _taps(x, window, window, (y.shape[1], y.shape[2])):
                part = left * tf.cast(tf.equal(tap, y), x.dtype)
                left = left - part
                parts.append(part)
            return _interleave(parts, ph, pw)

        return y, gradient

    return pool(x)


def average_pool(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean of each window; windows do not overlap and fill the image."""
    ph, pw = window

    @tf.custom_gradient
    def pool(x: Tensor) -> Any:
        y = tf.nn.avg_pool2d(x, window, window, "VALID")
        return y, lambda dy: _interleave([dy / (ph * pw)] * (ph * pw), ph, pw)

    return pool(x)


class _extent:
    """One axis of a sliding window: its padding before and after, its number of positions."""

    def __init__(self, size: int, window: int, stride: int, padding: str) -> None:
        if padding == "valid":
            self.pads, self.out = (0, 0), (size - window) // stride + 1
        else:
            self.out = -(-size // stride)
            total = max((self.out - 1) * stride + window - size, 0)
            self.pads = total // 2, total - total // 2
        self.size = size


def _pad(x: Tensor, rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
    return tf.pad(x, [[0, 0], rows, cols, [0, 0]]) if any((*rows, *cols)) else x


def _unpad(dx: Tensor, rows: _extent, cols: _extent) -> Tensor:
    """Gradient of the padded input to that of the input: what no window reached gets zero, what was padding goes."""
    missing = [max(0, e.pads[0] + e.size - n) for e, n in ((rows, dx.shape[1]), (cols, dx.shape[2]))]
    dx = _pad(dx, (0, missing[0]), (0, missing[1]))
    return tf.slice(dx, [0, rows.pads[0], cols.pads[0], 0], [-1, rows.size, cols.size, -1])


def _taps(x: Tensor, window: tuple[int, int], stride: tuple[int, int], out: tuple[int, int]) -> list[Tensor]:
    """For each position inside the window, row by row, the image of what it sees: [batch, *out, channels]."""
    (sh, sw), (oh, ow) = stride, out
    return [
        x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw, :]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _im2col(x: Tensor, window: tuple[int, int], stride: tuple[int, int], out: tuple[int, int]) -> Tensor:
    """[batch * out, window * channels]."""
    taps = _taps(x, window, stride, out)
    wide = tf.concat(taps, -1) if len(taps) > 1 else taps[0]
    return tf.reshape(wide, [-1, wide.shape[-1]])


def _stuff(dy: Tensor, stride: tuple[int, int]) -> Tensor:
    """stride - 1 zeros between neighbours, none after the last: reshape and PAD only, at most four dimensions."""
    _, h, w, c = dy.shape
    (sh, sw) = stride
    if sw > 1:
        dy = tf.pad(tf.reshape(dy, [-1, w, 1, c]), [[0, 0], [0, 0], [0, sw - 1], [0, 0]])
    if sh > 1:
        dy = tf.pad(tf.reshape(dy, [-1, h, 1, w * sw * c]), [[0, 0], [0, 0], [0, sh - 1], [0, 0]])
    dy = tf.reshape(dy, [-1, h * sh, w * sw, c])
    return tf.slice(dy, [0, 0, 0, 0], [-1, (h - 1) * sh + 1, (w - 1) * sw + 1, -1])


def _interleave(parts: list[Tensor], ph: int, pw: int) -> Tensor:
    """ph * pw images [batch, h, w, c] to one [batch, h * ph, w * pw, c], the inverse of `_taps` without overlap."""
    _, h, w, c = parts[0].shape
    lines = [tf.reshape(tf.concat(parts[i * pw : (i + 1) * pw], -1), [-1, h, 1, w * pw * c]) for i in range(ph)]
    return tf.reshape(tf.concat(lines, 2), [-1, h * ph, w * pw, c])
