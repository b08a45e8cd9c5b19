"""Attention and RotaryEmbedding of the newest opsets, which exporters of language models write.

Sources
    operators  https://onnx.ai/onnx/operators/onnx__Attention.html (23, 24, 25), onnx__RotaryEmbedding.html (23)
    method     Vaswani et al. 2017 (arXiv:1706.03762); grouped heads: Ainslie et al. 2023 (arXiv:2305.13245)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

LOWEST = float(np.finfo(np.float32).min)


def attention(
    n: Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    real: Value | None = None,
) -> tuple[Value, Value, Value, Value]:
    """Attention (ONNX 23; 24: nonpad_kv_seqlen; 25: windows): the result, both caches, and the scores.

    softmax(softcap(Q K' scale) + bias) V; a query that may attend to no key gets zeros. Several query heads that share
    one of keys and values are rows of one product: keys and values are not repeated.
    """
    heads = [_heads(n, x, name) for x, name in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads"))]
    if past_key is not None and past_value is not None:
        heads[1:] = [tf.concat([p.onnx(), t], 2) for p, t in zip((past_key, past_value), heads[1:], strict=True)]
    queries, keys, values = heads
    before = 0 if past_key is None else size(past_key.onnx(), 2)
    scale = n.attr("scale") or 1.0 / math.sqrt(_known(queries, 3))
    raw = _by_shared_heads(queries * scale, keys, turned=True)
    cap = n.attr("softcap", 0.0)
    capped = tf.tanh(raw / cap) * cap if cap else raw
    added, allowed = _masks(n, mask, size(queries, 2), size(keys, 2), before, real)
    scores = capped if added is None else capped + added
    scores = scores if allowed is None else tf.where(allowed, scores, -np.inf)
    weights = tf.nn.softmax(scores)
    if mask is not None or real is not None:
        usable = allowed if added is None else tf.logical_and(added >= LOWEST, True if allowed is None else allowed)
        weights = tf.where(tf.reduce_any(usable, -1, keepdims=True), weights, 0.0)
    result = _by_shared_heads(weights, values)
    if q.rank == 3:
        result = tf.transpose(result, [0, 2, 1, 3])
        result = tf.reshape(result, shape_of([size(result, 0), size(result, 1), -1]))
    mode = n.attr("qk_matmul_output_mode", 0)
    shown = (raw, capped, scores, weights)[mode]
    if mode == 2 and allowed is not None:
        shown = tf.where(allowed, scores, tf.math.log(tf.minimum(tf.abs(raw), 0.0)))  # -inf, not known beforehand
    return Value(result, q.dtype), Value(keys, k.dtype), Value(values, v.dtype), Value(shown, q.dtype)


def _known(t: Any, axis: int) -> int:
    if t.shape[axis] is None:
        raise AtRunTime("Attention with a free number of heads or a free head size")
    return int(t.shape[axis])


def _heads(n: Node, x: Value, name: str) -> Any:
    """[batch, heads, length, head size]; three axes are split into heads."""
    t = x.onnx()
    if x.rank == 4:
        return t
    heads = n.attr(name)
    split = shape_of([size(t, 0), size(t, 1), heads, _known(t, 2) // heads])
    return tf.transpose(tf.reshape(t, split), [0, 2, 1, 3])


def _by_shared_heads(a: Any, b: Any, turned: bool = False) -> Any:
    """The product of `a` [batch, heads, rows, ...] with `b` [batch, fewer heads, ...], each for some of `a`'s heads."""
    heads, shared = _known(a, 1), _known(b, 1)
    if heads == shared:
        return tf.matmul(a, b, transpose_b=turned)
    rows = size(a, 2)
    joint = tf.reshape(a, shape_of([size(a, 0), shared, rows * (heads // shared), size(a, 3)]))
    product = tf.matmul(joint, b, transpose_b=turned)
    return tf.reshape(product, shape_of([size(a, 0), heads, rows, size(product, 3)]))


def _masks(n: Node, mask: Value | None, rows: Any, columns: Any, before: Any, real: Value | None) -> tuple[Any, Any]:
    """Numbers to add to the scores, and truth values that say which count; None for none.

    They are kept apart: TFLite's converter writes -inf as the lowest finite number, so a row of -inf that came from
    truth values could not be told from a row of low numbers.
    """
    t = None if mask is None else _widened(mask.onnx(), columns)
    added, allowed = (None, [t]) if t is not None and t.dtype == tf.bool else (t, [])
    i, j = tf.expand_dims(tf.range(rows), 1), tf.expand_dims(tf.range(columns), 0)
    place = i + before
    if real is not None:  # of each row of the batch
        ends = tf.reshape(real.onnx(), [-1, 1, 1, 1])
        allowed.append(j < ends)
        place = i + ends - rows
    left, right = n.attr("left_window_size", -1), n.attr("right_window_size", -1)
    if n.attr("is_causal", 0):
        allowed.append(j <= place)
    if left >= 0:
        allowed.append(place - j <= left)
    if right >= 0:
        allowed.append(j - place <= right)
    together = allowed[0] if allowed else None
    for condition in allowed[1:]:
        together = tf.logical_and(together, condition)
    return added, together


def _widened(mask: Any, columns: Any) -> Any:
    """A mask for fewer keys than there are does not allow the others."""
    have = mask.shape[-1]
    if not (isinstance(have, int) and isinstance(columns, int)) or have >= columns:
        return mask
    pads = [*[[0, 0]] * (mask.shape.rank - 1), [0, columns - have]]
    return tf.pad(mask, pads, constant_values=False if mask.dtype == tf.bool else -np.inf)


def rotary_embedding(n: Node, x: Value, cos: Value, sin: Value, places: Value | None = None) -> Value:
    """RotaryEmbedding (ONNX 23): pairs of elements turned by an angle that grows with the token's place.

    A pair are elements i and i + half, or 2 i and 2 i + 1 (interleaved); rotary_embedding_dim turns the first ones.
    """
    t = x.onnx()
    if x.rank == 3:
        heads = n.attr("num_heads")
        if not heads:
            raise Unsupported("a RotaryEmbedding of three axes without num_heads")
        t = tf.reshape(t, shape_of([size(t, 0), size(t, 1), heads, _known(t, 2) // heads]))
    width = n.attr("rotary_embedding_dim", 0) or _known(t, 3)
    axis = 2 if x.rank == 3 else 1  # of the heads
    c, s = (tf.expand_dims(_at(table, places), axis) for table in (cos, sin))
    turned, rest = t[..., :width], t[..., width:]
    if n.attr("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
        pairs = tf.stack([c * a - s * b, s * a + c * b], -1)
        turned = tf.reshape(pairs, shape_of([size(t, 0), size(t, 1), size(t, 2), width]))
    else:
        a, b = tf.split(turned, 2, -1)
        turned = tf.concat([c * a - s * b, s * a + c * b], -1)
    result = turned if width == t.shape[3] else tf.concat([turned, rest], -1)
    if x.rank == 3:
        result = tf.reshape(result, shape_of([size(t, 0), size(t, 1), x.dims[2]]))
    return Value(result, x.dtype)


def _at(table: Value, places: Value | None) -> Any:
    """The cosines or sines [batch, length, half] of every token."""
    return table.onnx() if places is None else tf.gather(table.onnx(), places.onnx())


OPS = {"Attention": attention, "RotaryEmbedding": rotary_embedding}
