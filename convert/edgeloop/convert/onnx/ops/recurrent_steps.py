"""One step of RNN, GRU and LSTM, from the gates' products with the input and the states before, to the states after.

The products have the biases of both sides in them already, as far as these are only added. `r` holds the weights of
all gates for the state [gates * hidden, hidden]; it becomes a tensor inside the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.value import Value
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Functions = list[Callable]


def _product(h: Any, r: Value) -> Any:
    return tf.matmul(h, r.onnx(), transpose_b=True)


def _rows(v: Value, begin: int, end: int) -> Value:
    """Some rows of a weight; a constant if the weight is one."""
    return Value(const=v.const[begin:end]) if v.const is not None else Value(v.onnx()[begin:end], v.dtype)


def _clipped(n: Node, gate: Any) -> Any:
    """What goes into an activation, within -clip..clip."""
    limit = n.attr("clip")
    return tf.clip_by_value(gate, -limit, limit) if limit else gate


def rnn_step(n: Node, r: Value, bias: None, peepholes: None, f: Functions) -> Callable[[Any, list], list]:
    """H = f(X W + H R + b)."""
    return lambda x, s: [f[0](_clipped(n, x + _product(s[0], r)))]


def gru_step(n: Node, r: Value, bias: Value | None, peepholes: None, f: Functions) -> Callable[[Any, list], list]:
    """Gates in the order z, r, h. The reset gate is applied before the product with R, or behind (PyTorch, Keras).

    `bias` is what the product for h has behind it, and the reset gate before it (linear_before_reset).
    """
    hidden: int = r.dims[-1]  # type: ignore[assignment]
    behind = n.attr("linear_before_reset", 0)
    of_gates, of_new = _rows(r, 0, 2 * hidden), _rows(r, 2 * hidden, 3 * hidden)

    def step(x: Any, s: list) -> list:
        h = s[0]
        xz, xr, xh = tf.split(x, 3, -1)
        if behind:
            hz, hr, hh = tf.split(_product(h, r), 3, -1)
            hh = hh if bias is None else hh + bias.onnx()
            z, reset = f[0](_clipped(n, xz + hz)), f[0](_clipped(n, xr + hr))
            new = f[1](_clipped(n, xh + reset * hh))
        else:
            hz, hr = tf.split(_product(h, of_gates), 2, -1)
            z, reset = f[0](_clipped(n, xz + hz)), f[0](_clipped(n, xr + hr))
            new = f[1](_clipped(n, xh + _product(reset * h, of_new)))
        return [(1.0 - z) * new + z * h]

    return step


def lstm_step(n: Node, r: Value, bias: None, peepholes: Value | None, f: Functions) -> Callable[[Any, list], list]:
    """Gates in the order i, o, f, c; peepholes in the order i, o, f; with input_forget f = 1 - i."""
    coupled = n.attr("input_forget", 0)

    def step(x: Any, s: list) -> list:
        h, c = s
        pi, po, pf = tf.split(peepholes.onnx(), 3) if peepholes is not None else (None, None, None)
        i, o, forget, cell = tf.split(x + _product(h, r), 4, -1)
        if peepholes is not None:
            i, forget = i + pi * c, forget + pf * c
        i = f[0](_clipped(n, i))
        forget = 1.0 - i if coupled else f[0](_clipped(n, forget))
        new = forget * c + i * f[1](_clipped(n, cell))
        o = f[0](_clipped(n, o + po * new if peepholes is not None else o))
        return [o * f[2](new), new]

    return step
