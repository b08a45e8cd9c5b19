"""LSTM, GRU and SimpleRNN, one copy of the cell a time step: a loop would need TensorList ops, which lower badly.

`x` is float32 [batch, time, features] with a static time; a state is [batch, units], None for zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.training.products import dense
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State | None], State]


def lstm_step(cell: Any, activation: Callable, gate: Callable) -> Step:
    """Hochreiter and Schmidhuber 1997 with a forget gate, as Keras's LSTMCell: gates in the order i, f, c, o."""
    recurrent = tf.convert_to_tensor(cell.recurrent_kernel)

    def step(projected: Tensor, state: State | None) -> State:
        if state is None:  # h and c are zero: no product with them, whose left side would be a constant
            i, _, c, o = tf.split(projected, 4, axis=-1)
            carry = gate(i) * activation(c)
        else:
            i, f, c, o = tf.split(projected + dense(state[0], recurrent), 4, axis=-1)
            carry = gate(f) * state[1] + gate(i) * activation(c)
        return gate(o) * activation(carry), carry

    return step


def simple_step(cell: Any, activation: Callable, gate: Callable) -> Step:
    """Elman 1990, as Keras's SimpleRNNCell; there is no gate."""
    recurrent = tf.convert_to_tensor(cell.recurrent_kernel)

    def step(projected: Tensor, state: State | None) -> State:
        return (activation(projected if state is None else projected + dense(state[0], recurrent)),)

    return step


def gru_step(cell: Any, activation: Callable, gate: Callable) -> Step:
    """Cho et al. 2014 (arXiv:1406.1078) as Keras's GRUCell: gates in the order z, r, h; `reset_after` or before."""
    recurrent, units = tf.convert_to_tensor(cell.recurrent_kernel), cell.units
    gates, candidate = tf.slice(recurrent, [0, 0], [-1, 2 * units]), tf.slice(recurrent, [0, 2 * units], [-1, -1])
    bias = tf.unstack(tf.convert_to_tensor(cell.bias))[1] if cell.use_bias and cell.reset_after else None

    def after(projected: Tensor, state: State | None) -> State:
        inner = None if state is None else dense(state[0], recurrent)
        if bias is not None:
            inner = bias + tf.zeros_like(projected) if inner is None else inner + bias
        xz, xr, xh = tf.split(projected, 3, axis=-1)
        if inner is None:
            return ((1.0 - gate(xz)) * activation(xh),)
        hz, hr, hh = tf.split(inner, 3, axis=-1)
        z = gate(xz + hz)
        new = (1.0 - z) * activation(xh + gate(xr + hr) * hh)
        return (new if state is None else z * state[0] + new,)

    def before(projected: Tensor, state: State | None) -> State:
        xz, xr, xh = tf.split(projected, 3, axis=-1)
        if state is None:
            return ((1.0 - gate(xz)) * activation(xh),)
        hz, hr = tf.split(dense(state[0], gates), 2, axis=-1)
        z, r = gate(xz + hz), gate(xr + hr)
        return (z * state[0] + (1.0 - z) * activation(xh + dense(r * state[0], candidate)),)

    return after if cell.reset_after else before


def unroll(
    x: Tensor, kernel: Tensor, bias: Tensor | None, step: Step, state: State | None, *, backwards: bool
) -> list[Tensor]:
    """The output of every time step, the last one first in time where `backwards`.

    The input's share of all steps is one product, before the first.
    """
    projected = dense(x, kernel)
    moments = tf.unstack(projected if bias is None else projected + bias, axis=1)
    outputs = []
    for now in reversed(moments) if backwards else moments:
        state = step(now, state)
        outputs.append(state[0])
    return outputs
