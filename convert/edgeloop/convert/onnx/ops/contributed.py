"""Operators of com.microsoft that ONNX Runtime's optimizer writes in place of several: fused products, GELU, norms.

Sources
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md (version 1 of each)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.activations import gelu
from edgeloop.convert.onnx.ops.arithmetic import add, mul
from edgeloop.convert.onnx.ops.convolution import conv
from edgeloop.convert.onnx.ops.elementwise import scalar, unary
from edgeloop.convert.onnx.ops.matmul import gemm, matmul
from edgeloop.convert.onnx.ops.reductions import mean, reduced
from edgeloop.convert.onnx.value import Unsupported, Value, relabelled
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def fused_matmul(n: Node, a: Value, b: Value) -> Value:
    """FusedMatMul: with factors and transposed sides."""
    if n.attr("transBatchA", 0) or n.attr("transBatchB", 0):
        raise Unsupported("FusedMatMul of transposed batches")
    sides = []
    for v, name in ((a, "transA"), (b, "transB")):
        turned = n.attr(name, 0) and v.rank > 1
        sides.append(relabelled(v, [*range(v.rank - 2), v.rank - 1, v.rank - 2]) if turned else v)
    y, alpha = matmul(None, *sides), n.attr("alpha", 1.0)
    return y if alpha == 1 else mul(None, y, scalar(alpha))


def fused_conv(n: Node, x: Value, w: Value, b: Value | None = None, z: Value | None = None) -> Value:
    """FusedConv: with a sum and an activation behind it."""
    y = conv(n, x, w, b)
    return activated(n, y if z is None else add(None, y, z))


def fused_gemm(n: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """FusedGemm: with an activation behind it."""
    return activated(n, gemm(n, a, b, c))


def activated(n: Node, y: Value) -> Value:
    """The `activation` of a fused operator.

    Raises:
        Unsupported: It is none of those that ONNX Runtime fuses.
    """
    kind, numbers = n.attr("activation", ""), n.attr("activation_params", [n.attr("activation_alpha", 0.01)])
    functions: dict[str, Callable[[Any], Any]] = {
        "": lambda t: t,
        "Relu": tf.nn.relu,
        "Sigmoid": tf.sigmoid,
        "Tanh": tf.tanh,
        "LeakyRelu": lambda t: tf.nn.leaky_relu(t, numbers[0]),
        "Clip": lambda t: tf.minimum(tf.maximum(t, numbers[0]), numbers[1]),
        "HardSigmoid": lambda t: tf.clip_by_value(t * numbers[0] + numbers[1], 0.0, 1.0),
    }
    if kind not in functions:
        raise Unsupported(f"the activation {kind}")
    return unary(functions[kind])(n, y)


def bias_gelu(n: Node, x: Value, bias: Value) -> Value:
    """BiasGelu."""
    return gelu(n, add(None, x, bias))


def fast_gelu(n: Node, x: Value, bias: Value | None = None) -> Value:
    """FastGelu: by tanh."""
    return unary(lambda t: tf.nn.gelu(t, approximate=True))(n, x if bias is None else add(None, x, bias))


def quick_gelu(n: Node, x: Value) -> Value:
    """QuickGelu: x times the sigmoid of alpha x."""
    return unary(lambda t: t * tf.sigmoid(t * n.attr("alpha", 1.702)))(n, x)


def skip_layer_norm(n: Node, x: Value, skip: Value, gamma: Value, *rest: Value | None) -> tuple[Any, ...]:
    """SkipLayerNormalization (beta, bias) and SkipSimplifiedLayerNormalization (bias); the sum is the fourth output."""
    simple = n.op.startswith("SkipSimplified")
    beta, bias = (None, *rest, None)[:2] if simple else (*rest, None, None)[:2]
    total = add(None, x, skip)
    if bias is not None:
        total = add(None, total, bias)
    axis, epsilon = [total.rank - 1], n.attr("epsilon", 1e-5)
    off = total if simple else add(None, total, unary(tf.negative)(None, reduced(total, mean, axis)))
    by = unary(lambda t: tf.math.rsqrt(t + epsilon))(None, reduced(mul(None, off, off), mean, axis))
    y = mul(None, mul(None, off, by), gamma)
    return (y if beta is None else add(None, y, beta)), None, None, total


MICROSOFT: dict[str, Callable[..., Any]] = {
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "QuickGelu": quick_gelu,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_layer_norm,
}
OPS: dict[str, Callable[..., Any]] = {f"com.microsoft.{name}": function for name, function in MICROSOFT.items()}
