"""Pooling whose gradients lower to builtin TFLite ops; MaxPoolGrad and AvgPoolGrad exist only in Flex."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.training.activations import positive
from edgeloop.convert.training.windows import WindowAxis, axis, scatter, taps
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
Pair = tuple[int, int]
LOWEST = float(np.finfo(np.float32).min)  # what padding holds, so that it is never the largest


def max_pool(x: Tensor, window: Pair, stride: Pair, padding: str) -> Tensor:
    """Largest value of each window.

    The gradient goes to the FIRST maximum of a window, row by row, as in TensorFlow. Splitting it between ties moved
    the loss by 0.19 within 50 steps of McMahan's MNIST CNN.
    """
    rows, cols = _axes(x, window, stride, padding)

    @tf.custom_gradient
    def pool(x: Tensor) -> Any:
        y = tf.nn.max_pool2d(x, window, stride, padding.upper())

        def gradient(dy: Tensor) -> Tensor:
            left, parts = dy, []
            for tap in taps(x, rows, cols, LOWEST)[:-1]:
                rest = left * positive(y - tap)
                parts.append(left - rest)
                left = rest
            return scatter([*parts, left], rows, cols)  # the last tap has what none before it took

        return y, gradient

    return pool(x)


def average_pool(x: Tensor, window: Pair, stride: Pair, padding: str) -> Tensor:
    """Mean of each window, over the pixels that are not padding."""
    rows, cols = _axes(x, window, stride, padding)
    counts = np.multiply.outer(_counts(rows), _counts(cols))[None, :, :, None].astype(np.float32)

    @tf.custom_gradient
    def pool(x: Tensor) -> Any:
        y = tf.nn.avg_pool2d(x, window, stride, padding.upper())
        return y, lambda dy: scatter([dy / counts] * (window[0] * window[1]), rows, cols)

    return pool(x)


def _axes(x: Tensor, window: Pair, stride: Pair, padding: str) -> tuple[WindowAxis, WindowAxis]:
    return axis(x.shape[1], window[0], stride[0], padding), axis(x.shape[2], window[1], stride[1], padding)


def _counts(a: WindowAxis) -> np.ndarray:
    """Pixels that are not padding, of each position of the window."""
    first = np.arange(a.out) * a.stride - a.pads[0]
    return np.minimum(first + a.window, a.size) - np.maximum(first, 0)
