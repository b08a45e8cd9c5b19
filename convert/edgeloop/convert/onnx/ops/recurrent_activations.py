"""The activations of RNN, GRU and LSTM, which are named and have numbers of their own (activation_alpha and _beta)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.activations import elu, softplus
from edgeloop.convert.onnx.value import Unsupported
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

# the function, of its input and then alpha, and beta; the defaults of these
ACTIVATIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "affine": (lambda t, a, b: a * t + b, (1.0, 0.0)),
    "elu": (elu, (1.0,)),
    "hardsigmoid": (lambda t, a, b: tf.clip_by_value(a * t + b, 0.0, 1.0), (0.2, 0.5)),
    "leakyrelu": (tf.nn.leaky_relu, (0.01,)),
    "relu": (tf.nn.relu, ()),
    "scaledtanh": (lambda t, a, b: a * tf.tanh(b * t), (1.0, 1.0)),
    "sigmoid": (tf.sigmoid, ()),
    "softplus": (softplus, ()),
    "softsign": (tf.nn.softsign, ()),
    "tanh": (tf.tanh, ()),
    "thresholdedrelu": (lambda t, a: tf.where(t > a, t, tf.zeros_like(t)), (1.0,)),
}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def activations(n: Node, direction: int, directions: int) -> list[Callable]:
    """The functions of one direction: f, g and h as the operator's equations name them.

    The numbers in activation_alpha and activation_beta go, in order, to those functions that take any.

    Raises:
        Unsupported: A name that the specification lacks.
    """
    given = n.attr("activations") or DEFAULTS[n.op] * directions
    names = [(v.decode() if isinstance(v, bytes) else v) for v in given]
    alphas, betas = list(n.attr("activation_alpha", [])), list(n.attr("activation_beta", []))
    functions = []
    for name in names:
        if name.lower() not in ACTIVATIONS:
            raise Unsupported(f"the activation {name}")
        function, numbers = ACTIVATIONS[name.lower()]
        chosen = [own.pop(0) if own else usual for usual, own in zip(numbers, (alphas, betas), strict=False)]
        functions.append(_with(function, chosen))
    each = len(functions) // directions
    return functions[direction * each : (direction + 1) * each]


def _with(function: Callable, numbers: list[float]) -> Callable:
    return lambda t: function(t, *numbers)
