"""DynamicQuantizeLSTM of com.microsoft, which ONNX Runtime's dynamic quantizer writes in place of LSTM.

Source
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeLSTM
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.recurrent import recurrent
from edgeloop.convert.onnx.value import AtRunTime, Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def dynamic_quantize_lstm(n: Node, x: Value, w: Value, r: Value, *others: Value | None) -> tuple[Value, ...]:
    """An LSTM in float32 whose weights are those of the integers, and whose inputs and states are rounded as ONNX
    Runtime rounds them: to 256 steps between the least and the largest element of the whole tensor, at every step.

    Its weights are [directions, features, 4 * hidden], other than an LSTM's.
    """
    given: list[Any] = [*others, *[None] * (9 - len(others))]
    bias, lengths, h, c, peepholes, w_scale, w_zero, r_scale, r_zero = given
    n.op = "LSTM"
    weights = _weight(w, w_scale, w_zero), _weight(r, r_scale, r_zero)
    return recurrent(n, x, *weights, bias, lengths, h, c, peepholes, rounded=in_256_steps)


def _weight(v: Value, scale: Value | None, zero: Value | None) -> Value:
    """[directions, 4 * hidden, features] in float32; a scale is for a direction, or for each of its columns."""
    if v.const is None or scale is None or scale.const is None or (zero is not None and zero.const is None):
        raise AtRunTime("quantized weights that are computed at run time")
    directions = v.const.shape[0]
    offset = np.float32(0) if zero is None else zero.const.astype(np.float32).reshape(directions, 1, -1)  # type: ignore[union-attr]
    numbers = (v.const.astype(np.float32) - offset) * scale.const.reshape(directions, 1, -1)
    return Value(const=numbers.transpose(0, 2, 1).astype(np.float32))


def in_256_steps(t: Any) -> Any:
    """DynamicQuantizeLinear and back: zero is one of the steps."""
    low, high = tf.minimum(tf.reduce_min(t), 0.0), tf.maximum(tf.reduce_max(t), 0.0)
    step = (high - low) / 255.0
    step = tf.where(tf.equal(step, 0.0), 1.0, step)
    zero = tf.round(-low / step)
    return (tf.clip_by_value(tf.round(t / step) + zero, 0.0, 255.0) - zero) * step


OPS = {"com.microsoft.DynamicQuantizeLSTM": dynamic_quantize_lstm}
