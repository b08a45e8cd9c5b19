"""One step of RNN, GRU and LSTM, from the gates' products with the input and the states before, to the states after.

`r` holds the weights of all gates for the state [gates * hidden, hidden], `bias` theirs, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Functions = list[Callable]


def _product(h: Any, r: Any, bias: Any) -> Any:
    total = tf.matmul(h, r, transpose_b=True)
    return total if bias is None else total + bias


def _clipped(n: Node, gate: Any) -> Any:
    """What goes into an activation, within -clip..clip."""
    limit = n.attr("clip")
    return tf.clip_by_value(gate, -limit, limit) if limit else gate


def rnn_step(n: Node, r: Any, bias: Any, peepholes: Any, f: Functions) -> Callable[[Any, list], list]:
    """H = f(X W + H R + b)."""
    return lambda x, s: [f[0](_clipped(n, x + _product(s[0], r, bias)))]


def gru_step(n: Node, r: Any, bias: Any, peepholes: Any, f: Functions) -> Callable[[Any, list], list]:
    """Gates in the order z, r, h. The reset gate is applied before the product with R, or behind (PyTorch, Keras)."""
    hidden = r.shape[-1]
    behind = n.attr("linear_before_reset", 0)
    inner = [None, None] if bias is None else [bias[: 2 * hidden], bias[2 * hidden :]]

    def step(x: Any, s: list) -> list:
        h = s[0]
        xz, xr, xh = tf.split(x, 3, -1)
        if behind:
            hz, hr, hh = tf.split(_product(h, r, bias), 3, -1)
            z, reset = f[0](_clipped(n, xz + hz)), f[0](_clipped(n, xr + hr))
            new = f[1](_clipped(n, xh + reset * hh))
        else:
            hz, hr = tf.split(_product(h, r[: 2 * hidden], inner[0]), 2, -1)
            z, reset = f[0](_clipped(n, xz + hz)), f[0](_clipped(n, xr + hr))
            new = f[1](_clipped(n, xh + _product(reset * h, r[2 * hidden :], inner[1])))
        return [(1.0 - z) * new + z * h]

    return step


def lstm_step(n: Node, r: Any, bias: Any, peepholes: Any, f: Functions) -> Callable[[Any, list], list]:
    """Gates in the order i, o, f, c; peepholes in the order i, o, f; with input_forget f = 1 - i."""
    pi, po, pf = tf.split(peepholes, 3) if peepholes is not None else (None, None, None)
    coupled = n.attr("input_forget", 0)

    def step(x: Any, s: list) -> list:
        h, c = s
        i, o, forget, cell = tf.split(x + _product(h, r, bias), 4, -1)
        if peepholes is not None:
            i, forget = i + pi * c, forget + pf * c
        i = f[0](_clipped(n, i))
        forget = 1.0 - i if coupled else f[0](_clipped(n, forget))
        new = forget * c + i * f[1](_clipped(n, cell))
        o = f[0](_clipped(n, o + po * new if peepholes is not None else o))
        return [o * f[2](new), new]

    return step
