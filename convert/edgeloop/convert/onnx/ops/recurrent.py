"""RNN, GRU and LSTM: the products with the inputs for all steps at once, then a step at a time.

Sources
    operators  https://onnx.ai/onnx/operators/onnx__LSTM.html (1, 7, 14, 22), GRU and RNN alike
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.recurrent_activations import activations
from edgeloop.convert.onnx.ops.recurrent_steps import gru_step, lstm_step, rnn_step
from edgeloop.convert.onnx.ops.repetition import UNROLLED_STEPS, Repetition
from edgeloop.convert.onnx.value import Value, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Step = Callable[[Any, list], list]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS: dict[str, Callable[..., Step]] = {"GRU": gru_step, "LSTM": lstm_step, "RNN": rnn_step}


def recurrent(
    n: Node,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    h: Value | None = None,
    c: Value | None = None,
    peepholes: Value | None = None,
    *,
    rounded: Callable[[Any], Any] | None = None,
) -> tuple[Value, ...]:
    """RNN, GRU and LSTM (ONNX 7; 14: layout), all directions, activations, clip, sequence lengths, peepholes.

    x is [time, batch, features], with layout 1 [batch, time, features]; the last states come after the outputs.

    Args:
        rounded: What is done to the left side of every product first.
    """
    both, batch_first = n.attr("direction", "forward"), bool(n.attr("layout", 0))
    directions = [False, True] if both == "bidirectional" else [both == "reverse"]
    t = x.to((1, 0, 2)) if batch_first else x.onnx()
    ends = None if lengths is None else tf.reshape(lengths.onnx(), [-1])
    states = [h, c] if n.op == "LSTM" else [h]
    outs, finals = [], []
    for d, backward in enumerate(directions):
        xs = _reversed(t, ends) if backward else t
        step, projected = _direction(n, d, len(directions), rounded(xs) if rounded else xs, w, r, bias, peepholes)
        step = _with_rounded_output(step, rounded) if rounded else step
        start = [_start(s, d, batch_first, [size(t, 1), r.dims[2]]) for s in states]
        ys, last = _all_steps(step, projected, start, ends)
        outs.append(_reversed(ys, ends) if backward else ys)
        finals.append(last)
    y = Value(tf.stack(outs, 1), x.dtype, (1, 2, 0, 3) if batch_first else (0, 1, 2, 3))
    turned = (1, 0, 2) if batch_first else (0, 1, 2)
    return (y, *(Value(tf.stack(s, 0), x.dtype, turned) for s in zip(*finals, strict=True)))


def _direction(
    n: Node, d: int, count: int, xs: Any, w: Value, r: Value, bias: Value | None, peepholes: Value | None
) -> tuple[Step, Any]:
    """The step of direction `d`, and the products of its weights with all inputs."""
    width = GATES[n.op] * r.dims[2]  # type: ignore[operator]
    projected, inner = tf.matmul(xs, _of(w, d).onnx(), transpose_b=True), None
    if bias is not None:
        outer, inner = _of(_of(bias, d), slice(None, width)), _of(_of(bias, d), slice(width, None))
        projected = projected + outer.onnx()
        if n.op == "GRU" and n.attr("linear_before_reset", 0):
            new = 2 * r.dims[2]  # type: ignore[operator]
            gates = _of(inner, slice(None, new)).onnx()
            projected = projected + tf.concat([gates, tf.zeros([width - new])], 0)
            inner = _of(inner, slice(new, None))  # of the new state alone: the reset gate multiplies it
        else:
            projected, inner = projected + inner.onnx(), None
    peeps = None if peepholes is None else _of(peepholes, d)
    return STEPS[n.op](n, _of(r, d), inner, peeps, activations(n, d, count)), projected


def _with_rounded_output(step: Step, rounded: Callable[[Any], Any]) -> Step:
    return lambda x, states: step(x, [rounded(states[0]), *states[1:]])


def _of(v: Value, part: int | slice) -> Value:
    """A part of a weight, a constant if the weight is one.

    A constant becomes a tensor where it is used, in the loop's body. One that the loop took from outside would be left
    behind there as a tensor of float32 without a use, whose buffer quantizers halve: LiteRT then refuses the file.
    """
    return Value(const=v.const[part]) if v.const is not None else Value(v.onnx()[part], v.dtype)


def _start(state: Value | None, d: int, batch_first: bool, sizes: Sequence[Any]) -> Any:
    """The state before the first step of direction `d`, [batch, hidden]: zeros where it is not given."""
    if state is None:
        return tf.zeros(shape_of(sizes))
    return state.onnx()[:, d] if batch_first else state.onnx()[d]


def _reversed(t: Any, ends: Any) -> Any:
    """Backward in time, each row of the batch from its own end."""
    return tf.reverse(t, [0]) if ends is None else tf.reverse_sequence(t, ends, seq_axis=0, batch_axis=1)


def _all_steps(step: Step, xs: Any, start: list, ends: Any) -> tuple[Any, list]:
    """Run `step` over the first axis. Behind its end a row keeps its state, and its outputs are zero.

    The specification does not say what the last state of a row of no steps is: zero, as in ONNX Runtime.
    """

    def one(i: Any, x: Any, states: list) -> list:
        new = step(x, states)
        if ends is None:
            return new
        return [tf.where((i < ends)[:, None], s, old) for s, old in zip(new, states, strict=True)]

    count = xs.shape[0]
    if count is not None and count <= UNROLLED_STEPS:
        states, rows = start, []
        for i in range(count):
            states = one(i, xs[i], states)
            rows.append(states[0])
        ys = tf.stack(rows)
    else:
        width = [[xs.shape[1], s.shape[-1]] for s in start]

        def turn(i: Any, parts: list, states: list) -> tuple[list, list]:
            new = one(i, parts[0], states)
            return new, new[:1]

        empty = tf.zeros(shape_of([1, size(xs, 1), start[0].shape[-1]]))
        states, rows = Repetition(turn, [xs], width, [width[0]]).run(size(xs, 0), start, [empty])
        ys = rows[0]
        ys.set_shape([count, *width[0]])
    if ends is None:
        return ys, states
    states = [tf.where(tf.expand_dims(ends > 0, -1), s, 0.0) for s in states]
    alive = tf.range(size(ys, 0))[:, None] < ends[None, :]
    return tf.where(tf.expand_dims(alive, -1), ys, 0.0), states  # LiteRT lacks [..., None] of free sizes


OPS = {"GRU": recurrent, "LSTM": recurrent, "RNN": recurrent}
