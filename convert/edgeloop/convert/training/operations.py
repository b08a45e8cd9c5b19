"""Operations of keras.ops on tensors, `x * 3` and `x[:, 1:]` among them, with gradients that a device can run.

`OPERATIONS` says what computes which, by the name of the operation's class: None is Keras's own call, whose gradient
lowers to builtin ops as it is. A function of ours takes the operation, which holds options, and the call's arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.training import activations as act
from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.convert.training.slicing import check_key, take
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Tensor = Any


def larger(a: Any, b: Any) -> Tensor:
    """The larger of two tensors or numbers; a tie's gradient goes to `a`, as in TensorFlow."""
    a, b = _floats(a, b)
    first = tf.stop_gradient(tf.cast(a >= b, tf.float32))
    return a * first + b * (1.0 - first)


def smaller(a: Any, b: Any) -> Tensor:
    a, b = _floats(a, b)
    first = tf.stop_gradient(tf.cast(a <= b, tf.float32))
    return a * first + b * (1.0 - first)


def _floats(*values: Any) -> list[Tensor]:
    return [tf.cast(value, tf.float32) for value in values]


def _clip(op: Any, x: Tensor) -> Tensor:
    return act.clip(x, float(op.x_min), float(op.x_max))


def _repeat(op: Any, x: Tensor) -> Tensor:
    """By concatenation: Tile's gradient has twice the dimensions, which XNNPACK refuses while it runs."""
    axis = op.axis % len(x.shape)
    shape = [*x.shape[:axis], x.shape[axis] * op.repeats, *x.shape[axis + 1 :]]
    return tf.reshape(tf.stack([x] * op.repeats, axis + 1), shape)


def _tile(op: Any, x: Tensor) -> Tensor:
    for axis, times in enumerate(op.repeats):
        x = tf.concat([x] * times, axis) if times > 1 else x
    return x


def _simple(f: Callable) -> Callable:
    return lambda op, *args: f(*args)


AS_THEY_ARE = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "Square", "Sqrt", "Rsqrt"),
    *("Power", "Exp", "Log", "Sin", "Cos", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Logsumexp"),
    *("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Var", "Std", "Cumsum", "Matmul", "Einsum"),
    *("Reshape", "Transpose", "Swapaxes", "Moveaxis", "ExpandDims", "Squeeze", "Pad", "Flip", "Roll"),
    *("Concatenate", "Stack", "Split", "Unstack", "Cast", "Where", "Greater", "GreaterEqual", "Less", "LessEqual"),
)
OPERATIONS: dict[str, Callable | None] = {
    **dict.fromkeys(AS_THEY_ARE),
    "Reciprocal": lambda op, x: 1.0 / x,
    "Repeat": _repeat,
    "Tile": _tile,
    "GetItem": lambda op, x, key: take(x, key),
    "Maximum": _simple(larger),
    "Minimum": _simple(smaller),
    "Clip": _clip,
    "Absolute": _simple(act.absolute),
    "Relu": _simple(act.relu),
    "Relu6": _simple(act.relu6),
    "LeakyRelu": lambda op, x: act.leaky_relu(x, op.negative_slope),
    "Elu": lambda op, x: act.elu(x, op.alpha),
    "Celu": lambda op, x: act.celu(x, op.alpha),
    "Selu": _simple(act.selu),
    "Gelu": lambda op, x: act.gelu_tanh(x) if op.approximate else act.gelu(x),
    "Glu": lambda op, x: act.glu(x, op.axis),
    "Silu": _simple(act.silu),
    "Softplus": _simple(act.softplus),
    "HardSigmoid": _simple(act.hard_sigmoid),
    **{
        name: _simple(act.ACTIVATIONS[function])
        for name, function in {
            "HardSilu": act.A.hard_silu,
            "HardTanh": act.A.hard_tanh,
            "Softsign": act.A.softsign,
            "LogSigmoid": act.A.log_sigmoid,
            "TanhShrink": act.A.tanh_shrink,
        }.items()
    },
}


def device_operation(op: Any) -> Callable:
    """What computes a supported operation."""
    function = OPERATIONS[type(op).__name__]
    return op if function is None else lambda *args, **kwargs: function(op, *args, **kwargs)


def check_operation(node: Any) -> None:
    """
    Raises:
        ModelError: The operation has no device gradient, or an option of it that has none.
    """
    op, name = node.operation, type(node.operation).__name__
    if not type(op).__module__.startswith("keras.") or name not in OPERATIONS:
        raise layer_refusal(
            op,
            f"is keras.ops.{name}, which has no device gradient",
            "docs/trainable.md lists the operations that have one.",
        )
    if name == "GetItem":
        check_key(op, *node.arguments.args[1:], *node.arguments.kwargs.values())
    if name == "Clip" and not all(isinstance(bound, (int, float)) for bound in (op.x_min, op.x_max)):
        raise layer_refusal(op, "clips to bounds that are tensors", "Use two numbers.")
    if name == "Repeat" and not (isinstance(op.repeats, int) and isinstance(op.axis, int)):
        raise layer_refusal(op, "repeats by a list or over all axes", "Pass one number and an axis.")
    if name == "Tile" and len(op.repeats) != len(node.input_tensors[0].shape):
        raise layer_refusal(op, f"has {len(op.repeats)} repeats", "Pass one for each dimension.")
    if name == "Pad" and op.mode != "constant":
        raise layer_refusal(op, f"pads in the mode {op.mode}", "Use the mode constant.")
    if name in ("Softmax", "LogSoftmax") and op.axis not in (-1, len(node.outputs[0].shape) - 1):
        raise layer_refusal(op, f"is over axis {op.axis}", "Use the last axis.")
