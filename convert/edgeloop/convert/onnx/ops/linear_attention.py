"""LinearAttention and CausalConvWithState: layers of language models whose state does not grow with the text.

Sources
    operators  https://onnx.ai/onnx/operators/onnx__LinearAttention.html (27), onnx__CausalConvWithState.html (27)
    method     Yang et al. 2024 (arXiv:2412.06464), gated delta networks
"""

from __future__ import annotations

import math
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.repetition import UNROLLED_STEPS, Repetition
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

GATED, CORRECTED = ("gated", "gated_delta"), ("delta", "gated_delta")


def linear_attention(
    n: Node,
    query: Value,
    key: Value,
    value: Value,
    state: Value | None = None,
    decay: Value | None = None,
    beta: Value | None = None,
) -> tuple[Value, Value]:
    """LinearAttention (ONNX 27): S = exp(g) S + beta k (v - exp(g) S' k)', and q' S scale for each query head.

    One step a token; everything is [time, batch, heads of keys and values, ...] inside.
    """
    rule, heads, readers = n.attr("update_rule", "gated_delta"), n.attr("kv_num_heads"), n.attr("q_num_heads")
    if rule not in ("linear", *GATED, *CORRECTED):
        raise Unsupported(f"a LinearAttention with update rule {rule}")
    q, k, v = (_by_time(x, heads) for x in (query, key, value))
    width, depth = k.shape[-1], v.shape[-1]
    q = tf.reshape(q, shape_of([size(q, 0), size(q, 1), heads, readers // heads, width]))
    given = [decay if rule in GATED else None, beta if rule in CORRECTED else None]
    sources = [q, k, v, *(_by_time(x, _heads(x, heads)) for x in given if x is not None)]
    scale = n.attr("scale", 0.0) or 1.0 / math.sqrt(width)

    def turn(i: Any, parts: list, states: list) -> tuple[list, list]:
        q, k, v, *rest = parts
        s = states[0]
        if rule in GATED:
            s = s * tf.expand_dims(tf.exp(rest.pop(0)), -1)
        if rule in CORRECTED:
            v = rest.pop(0) * (v - tf.reduce_sum(s * tf.expand_dims(k, -1), 2))
        s = s + tf.expand_dims(k, -1) * tf.expand_dims(v, 2)
        return [s], [tf.matmul(q, s) * scale]

    batch = size(k, 1)
    start = tf.zeros(shape_of([batch, heads, width, depth])) if state is None else state.onnx()
    known = [k.shape[1], heads, readers // heads, depth]
    if k.shape[0] is not None and k.shape[0] <= UNROLLED_STEPS:
        states, rows = [start], []
        for i in range(k.shape[0]):
            states, made = turn(i, [s[i] for s in sources], states)
            rows.append(made[0])
        result = tf.stack(rows)
    else:
        empty = tf.zeros(shape_of([1, batch, *known[1:]]))
        repetition = Repetition(turn, sources, [[k.shape[1], heads, width, depth]], [known])
        states, (result,) = repetition.run(size(k, 0), [start], [empty])
    flat = tf.reshape(result, shape_of([size(k, 0), batch, readers * depth]))
    return Value(flat, query.dtype, (1, 0, 2)), Value(states[0], query.dtype if state is None else state.dtype)


def _heads(x: Value, heads: int) -> int:
    """A decay or an update rate has one number for each head, or one for all, or one for each element of a key."""
    return 1 if x.dims[2] == 1 else heads


def _by_time(x: Value, heads: int) -> Any:
    """[batch, time, heads * width] as [time, batch, heads, width]."""
    if x.dims[2] is None:
        raise AtRunTime("LinearAttention with heads of a free size")
    t = x.to((1, 0, 2))
    return tf.reshape(t, shape_of([size(t, 0), size(t, 1), heads, x.dims[2] // heads]))


def causal_convolution(
    n: Node, x: Value, w: Value, bias: Value | None = None, past: Value | None = None
) -> tuple[Value, Value]:
    """CausalConvWithState (ONNX 27): a convolution channel by channel of what was and is, and the end of that.

    Raises:
        Unsupported: An activation that the specification lacks.
    """
    activation, order = n.attr("activation", "none"), (0, 2, 1)
    if activation not in ("none", "silu", "swish"):
        raise Unsupported(f"a CausalConvWithState with activation {activation}")
    t, reach = x.to(order), w.dims[2]
    if reach is None or x.dims[1] is None:
        raise AtRunTime("CausalConvWithState of free channels or a free kernel")
    before = tf.zeros(shape_of([size(t, 0), reach - 1, x.dims[1]])) if past is None else past.to(order)
    whole = tf.concat([before, t], 1) if reach > 1 else t
    kernel = tf.transpose(w.onnx(), [1, 2, 0])  # [1, reach, channels]
    result = tf.nn.depthwise_conv2d(tf.expand_dims(whole, 1), tf.expand_dims(kernel, -1), [1, 1, 1, 1], "VALID")
    result = tf.squeeze(result, 1)
    result = result if bias is None else result + bias.onnx()
    result = result if activation == "none" else result * tf.sigmoid(result)
    end = whole[:, size(t, 1) :] if reach > 1 else before
    return Value(result, x.dtype, order), Value(end, x.dtype if past is None else past.dtype, order)


OPS = {"CausalConvWithState": causal_convolution, "LinearAttention": linear_attention}
