"""Scan: straight code where the length is known and small, else a WHILE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.joining import joined
from edgeloop.convert.onnx.ops.repetition import UNROLLED_STEPS, Repetition
from edgeloop.convert.onnx.value import Unsupported, Value, size, unsqueezed, working_type
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
func_graph: Any = need("tensorflow.python.framework.func_graph", extra="convert")


def scan(n: Node, *values: Any) -> tuple[Value, ...]:
    """Scan (ONNX 9, 11, 16, 19, 21; 8: with a batch axis, of which the body knows nothing).

    Raises:
        Unsupported: Opset 8 with lengths of sequences.
    """
    if n.opset < 9:
        return _with_batch(n, values)
    m, rank = n.attr("num_scan_inputs"), [v.rank for v in values]
    kept, sources = list(values[:-m]), list(values[-m:])
    axes = [a % r for a, r in zip(n.attr("scan_input_axes", [0] * m), rank[-m:], strict=True)]
    backward = n.attr("scan_input_directions", [0] * m)
    sources = [_lengthwise(v, axis, bool(back)) for v, axis, back in zip(sources, axes, backward, strict=True)]
    return _scanned(n, kept, sources)


def _lengthwise(v: Value, axis: int, backward: bool) -> Value:
    """With the scanned axis first, in the order in which it is walked."""
    order = [axis, *(a for a in range(v.rank) if a != axis)]
    if v.const is not None:
        turned = v.const.transpose(order)
        return Value(const=turned[::-1] if backward else turned)
    t = v.to(order)
    return Value(tf.reverse(t, [0]) if backward else t, v.dtype)


def _step(n: Node, kept: Sequence[Value], parts: Sequence[Value]) -> list[Value]:
    return n.body("body", **dict(zip([v.name for v in n.attr("body").input], [*kept, *parts], strict=True)))


def _scanned(n: Node, kept: list[Value], sources: list[Value]) -> tuple[Value, ...]:
    length = next((s.dims[0] for s in sources if s.dims[0] is not None), None)
    if length is not None and 0 < length <= UNROLLED_STEPS:
        kept, collected = _straight(n, length, kept, sources)
    else:
        kept, collected = _repeated(n, kept, sources)
    outs = len(collected)
    axes, backward = n.attr("scan_output_axes", [0] * outs), n.attr("scan_output_directions", [0] * outs)
    placed = [_placed(v, axis, back) for v, axis, back in zip(collected, axes, backward, strict=True)]
    return (*kept, *placed)


def _placed(v: Value, axis: int, backward: bool) -> Value:
    """The collected rows [steps, ...] with the axis of steps where it belongs; only a label moves."""
    axis %= v.rank
    t = tf.reverse(v.onnx(), [0]) if backward else v.onnx()
    order = [axis, *(a for a in range(v.rank) if a != axis)]
    return Value(t, v.dtype, order)


def _straight(n: Node, length: int, kept: list[Value], sources: list[Value]) -> tuple[list[Value], list[Value]]:
    k = len(kept)
    rows: list[list[Value]] = [[] for _ in n.attr("body").output[k:]]
    for i in range(length):
        parts = [Value(s.onnx()[i], s.dtype) if s.const is None else Value(const=s.const[i]) for s in sources]
        results = _step(n, kept, parts)
        kept = results[:k]
        for row, value in zip(rows, results[k:], strict=True):
            row.append(unsqueezed(value, [0]))
    return kept, [joined(row, 0) for row in rows]


def _repeated(n: Node, kept: list[Value], sources: list[Value]) -> tuple[list[Value], list[Value]]:
    """A WHILE over the length, which may be free."""
    k, types = len(kept), [v.dtype for v in kept]
    tensors = [s.onnx() for s in sources]

    def one(parts: Sequence[Any], states: Sequence[Any]) -> list[Value]:
        given = [Value(t, d) for t, d in zip(states, types, strict=True)]
        return _step(n, given, [Value(p, s.dtype) for p, s in zip(parts, sources, strict=True)])

    def turn(i: Any, parts: list, states: list) -> tuple[list, list]:
        results = one(parts, states)
        return [v.onnx() for v in results[:k]], [v.onnx() for v in results[k:]]

    with func_graph.FuncGraph("trial").as_default():
        place = tf.compat.v1.placeholder
        parts = [place(working_type(s.dtype), s.dims[1:]) for s in sources]
        trial = one(parts, [place(working_type(v.dtype), v.dims) for v in kept])
        rows = [(v.dtype, v.dims) for v in trial[k:]]
    if any(None in dims for _, dims in rows):  # one step ahead of the loop tells the sizes
        first = one([t[0] for t in tensors], [v.onnx() for v in kept])
        empty = [tf.zeros_like(v.onnx())[None] for v in first[k:]]
    else:
        empty = [tf.zeros([1, *dims], working_type(d)) for d, dims in rows]
    shapes = [v.dims for v in kept]
    repetition = Repetition(turn, tensors, shapes, [dims for _, dims in rows])
    states, collected = repetition.run(size(tensors[0], 0), [v.onnx() for v in kept], empty)
    return (
        [Value(t, d) for t, d in zip(states, types, strict=True)],
        [Value(t, d) for t, (d, _) in zip(collected, rows, strict=True)],
    )


def _with_batch(n: Node, values: Sequence[Any]) -> tuple[Value, ...]:
    """Opset 8: axis 0 of everything is the batch; each element of it is scanned for itself."""
    if values[0] is not None:
        raise Unsupported("a Scan of opset 8 with lengths of sequences")
    m, batch = n.attr("num_scan_inputs"), values[1].dims[0]
    backward = n.attr("directions", [0] * m)
    if batch is None:
        raise Unsupported("a Scan of opset 8 with a free batch")
    results = []
    for b in range(batch):
        parts = [Value(v.onnx()[b], v.dtype) for v in values[1:]]
        sources = [_lengthwise(v, 0, bool(back)) for v, back in zip(parts[-m:], backward, strict=True)]
        results.append(_scanned(n, parts[:-m], sources))
    return tuple(joined([unsqueezed(v, [0]) for v in each], 0) for each in zip(*results, strict=True))


OPS = {"Scan": scan}
