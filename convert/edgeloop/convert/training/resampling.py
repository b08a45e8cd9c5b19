"""Images resized by a product with a constant matrix for each axis, whose gradient is one with its transpose."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any


def resize(x: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """An image [batch, height, width, channels] at another `size`, as tf.image.resize does it without antialias."""
    _, height, width, channels = x.shape
    tall = _product(_matrix(height, size[0], method), tf.reshape(x, [-1, height, width * channels]))
    wide = tf.reshape(tall, [-1, width, channels])
    return tf.reshape(_product(_matrix(width, size[1], method), wide), [-1, *size, channels])


def _product(m: np.ndarray, x: Tensor) -> Tensor:
    """[out, in] by [batch, in, n], with a copy of `m` a sample: BATCH_MATMUL does not repeat a side everywhere."""

    @tf.custom_gradient
    def product(x: Tensor) -> Any:
        def of(matrix: np.ndarray, x: Tensor) -> Tensor:
            return tf.matmul(tf.constant(np.broadcast_to(matrix, (x.shape[0], *matrix.shape))), x)

        return of(m, x), lambda dy: of(m.T, dy)

    return product(x)


def _matrix(size: int, out: int, method: str) -> np.ndarray:
    """[out, size] that resizes one axis: what becomes of each unit vector."""
    units = np.eye(size, dtype=np.float32).reshape(size, size, 1, 1)
    with tf.init_scope():
        return tf.image.resize(units, (out, 1), method).numpy()[:, :, 0, 0].T
