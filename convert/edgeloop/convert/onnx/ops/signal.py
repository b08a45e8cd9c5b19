"""DFT and STFT, as products with matrices of cosines and sines, and the windows and mel weights that go with them.

LiteRT has one operator for it, RFFT2D, for real signals of lengths that are powers of two. A product takes every
length, also a free one, complex numbers, and the inverse; its angles are reduced before the cosine, in whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.convert.onnx.fold import refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
helper: Any = need("onnx.helper", extra="convert")

MATRIX = 4096  # the longest transform that is a product: 128 MB of cosines and sines


def dft(n: Node, x: Value, length: Value | None = None, axis: Value | None = None) -> Value:
    """DFT (ONNX 17: attribute axis, by default 1; 20: input, by default -2; onesided inverse gives real numbers).

    Complex numbers are pairs in the last axis. Longer signals are cut to dft_length, shorter ones filled with zeros.
    """
    place = int(n.known(2, "axis", 1 if n.opset < 20 else -2)) % x.rank
    inverse, onesided = bool(n.attr("inverse", 0)), bool(n.attr("onesided", 0))
    order = [x.rank - 1, *(a for a in range(x.rank - 1) if a != place), place]  # (re, im) first, what is summed last
    t = x.to(order)
    have, parts = size(t, x.rank - 1), [t[k] for k in range(2 if x.dims[-1] == 2 else 1)]
    whole = (have - 1) * 2 if inverse and onesided else have
    if length is not None:
        whole = int(np.ravel(n.known(1))[0]) if length.const is not None else tf.reshape(length.onnx(), [])
    used = whole // 2 + 1 if inverse and onesided else whole
    parts = [_to_length(p, have, used) for p in parts]
    if inverse and onesided:
        results = [_real_inverse(parts, whole, used)]
    else:
        results = _transformed(parts, whole, whole // 2 + 1 if onesided else whole, inverse)
    return Value(tf.stack(results, 0), x.dtype, order)


def _to_length(t: Any, have: Any, wanted: Any) -> Any:
    """The last axis cut, or filled with zeros behind."""
    if isinstance(have, int) and isinstance(wanted, int):
        more, t = wanted - have, t[..., :wanted]
        return tf.pad(t, [*[[0, 0]] * (t.shape.rank - 1), [0, more]]) if more > 0 else t
    if have is wanted:
        return t
    t = t[..., :wanted]
    return tf.pad(t, [*[[0, 0]] * (t.shape.rank - 1), [0, tf.maximum(wanted - have, 0)]])


def _waves(rows: Any, columns: Any, length: Any) -> tuple[Any, Any]:
    """cos and sin of 2 pi row column / length."""
    if all(isinstance(d, int) for d in (rows, columns, length)):
        if length > MATRIX:
            raise Unsupported(f"a transform of {length} elements, more than {MATRIX}")
        refuse_large([rows, columns])
        angles = 2 * np.pi / length * (np.outer(np.arange(rows), np.arange(columns)) % length)
        return tf.constant(np.cos(angles), tf.float32), tf.constant(np.sin(angles), tf.float32)
    turns = tf.math.floormod(tf.range(rows)[:, None] * tf.range(columns)[None, :], length)
    angles = tf.cast(turns, tf.float32) * (2 * math.pi / tf.cast(length, tf.float32))
    return tf.cos(angles), tf.sin(angles)


def _transformed(parts: list[Any], length: Any, columns: Any, inverse: bool) -> list[Any]:
    """Real and imaginary part."""
    cos, sin = _waves(length, columns, length)
    sin = sin if inverse else -sin
    real, imaginary = _product(parts[0], cos), _product(parts[0], sin)
    if len(parts) == 2:
        real, imaginary = real - _product(parts[1], sin), imaginary + _product(parts[1], cos)
    if inverse:
        real, imaginary = (t / tf.cast(length, tf.float32) for t in (real, imaginary))
    return [real, imaginary]


def _real_inverse(parts: list[Any], length: Any, used: Any) -> Any:
    """Of half a spectrum: every frequency but the first, and the middle one of an even length, stands for two."""
    cos, sin = _waves(used, length, length)
    k = tf.range(used)
    single = tf.logical_or(tf.equal(k, 0), tf.equal(2 * k, length))
    twice = tf.where(single, 1.0, 2.0) / tf.cast(length, tf.float32)
    total = _product(parts[0] * twice, cos)
    return total - _product(parts[1] * twice, sin) if len(parts) == 2 else total


def _product(t: Any, matrix: Any) -> Any:
    """Over the last axis, in any number of others."""
    return tf.matmul(t, matrix) if t.shape.rank > 1 else tf.matmul(t[None], matrix)[0]


def stft(n: Node, x: Value, step: Value, window: Value | None = None, length: Value | None = None) -> Value:
    """STFT (ONNX 17) as one strided convolution, whose kernel is the window times the cosines and sines.

    The signal may be of free length. Whisper's front end (400, step 160) becomes one CONV_2D.

    Raises:
        AtRunTime: A step or a length of frames that is computed.
    """
    stride, onesided = int(np.ravel(n.known(1, "frame_step"))[0]), bool(n.attr("onesided", 1))
    frame = int(np.ravel(n.known(3, "frame_length"))[0]) if length is not None else None
    if frame is None:
        frame = x.dims[1] if window is None else window.dims[0]
    if frame is None:
        raise AtRunTime("STFT of frames of a free length")
    t = x.onnx() if x.rank == 3 else tf.expand_dims(x.onnx(), -1)
    columns = frame // 2 + 1 if onesided else frame
    cos, sin = _waves(frame, columns, frame)
    kernels = [tf.stack([cos, -sin], -1)]  # of the real part, to the real and imaginary part of each frequency
    if t.shape[-1] == 2:
        kernels.append(tf.stack([sin, cos], -1))
    kernel = tf.reshape(tf.stack(kernels, 1), [1, frame, len(kernels), 2 * columns])
    if window is not None:
        kernel = kernel * tf.reshape(window.onnx(), [1, -1, 1, 1])
    result = tf.nn.conv2d(t[:, None], kernel, [1, 1, stride, 1], "VALID")
    frames = result.shape[2] if result.shape[2] is not None else -1
    batch = result.shape[0] if result.shape[0] is not None else tf.shape(result)[0]
    return Value(tf.reshape(result, [batch, frames, columns, 2]), x.dtype)


def window(*terms: float) -> Callable[..., Value]:
    """HannWindow, HammingWindow, BlackmanWindow (ONNX 17): a sum of cosines, periodic or symmetric."""

    def op(n: Node, count: Value) -> Value:
        dtype = helper.tensor_dtype_to_np_dtype(n.attr("output_datatype", 1))
        length = tf.reshape(count.onnx(), [])
        turn = 2 * math.pi / tf.cast(length if n.attr("periodic", 1) else length - 1, tf.float32)
        places = tf.cast(tf.range(length), tf.float32)
        return Value(sum(a * tf.cos(places * (k * turn)) for k, a in enumerate(terms)), dtype)

    return op


def mel_weight_matrix(n: Node, bins: Value, length: Value, rate: Value, low: Value, high: Value) -> Value:
    """MelWeightMatrix (ONNX 17): triangles [length / 2 + 1, bins]. Of constants it is folded; this one is computed."""
    count, dft_length, sample_rate = (tf.reshape(v.onnx(), []) for v in (bins, length, rate))
    ends = [2595.0 / math.log(10) * tf.math.log(1.0 + tf.reshape(v.onnx(), []) / 700.0) for v in (low, high)]
    step = (ends[1] - ends[0]) / tf.cast(count + 2, tf.float32)
    mels = tf.cast(tf.range(count + 2), tf.float32) * step + ends[0]
    hertz = 700.0 * (tf.exp(mels * (math.log(10) / 2595.0)) - 1.0)
    edges = tf.floor(hertz * tf.cast(dft_length + 1, tf.float32) / tf.cast(sample_rate, tf.float32))
    below, middle, above = edges[:-2], edges[1:-1], edges[2:]
    at = tf.cast(tf.range(tf.math.floordiv(dft_length, 2) + 1), tf.float32)[:, None]
    rising = tf.where(tf.equal(middle, below), 1.0, (at - below) / tf.maximum(middle - below, 1.0))
    falling = (above - at) / tf.maximum(above - middle, 1.0)
    weights = tf.where(tf.logical_and(at >= below, at <= middle), rising, 0.0)
    weights = tf.where(tf.logical_and(at >= middle, at < above), falling, weights)
    return Value(weights, helper.tensor_dtype_to_np_dtype(n.attr("output_datatype", 1)))


OPS = {
    "BlackmanWindow": window(0.42, -0.5, 0.08),
    "DFT": dft,
    "HammingWindow": window(25 / 46, -21 / 46),
    "HannWindow": window(0.5, -0.5),
    "MelWeightMatrix": mel_weight_matrix,
    "STFT": stft,
}
