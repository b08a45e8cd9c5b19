"""The topology of a TF.js graph model and its weights in, a TensorFlow GraphDef out.

TF.js fuses operations as TensorFlow's own graph optimizer does (_FusedConv2D, _FusedMatMul) and in ways of its own
(FusedDepthwiseConv2dNative, Prelu), which TensorFlow has no operation for. Here they are taken apart again.

Source: https://github.com/tensorflow/tfjs/tree/master/tfjs-converter/python/tensorflowjs/converters (fuse_prelu.py,
fuse_depthwise_conv2d.py, tf_saved_model_conversion_v2.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from edgeloop.extras import need

# fused operation to the plain one, and which of its attributes that has
PLAIN = {
    "_FusedConv2D": ("Conv2D", ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations")),
    "FusedDepthwiseConv2dNative": (
        "DepthwiseConv2dNative",
        ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations"),
    ),
    "_FusedMatMul": ("MatMul", ("T", "transpose_a", "transpose_b")),
}
UNARY = frozenset({"Relu", "Relu6", "Elu", "Sigmoid", "Tanh", "LeakyRelu"})


def graph_def(topology: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Any:
    """Constants hold their weights, in the graph and in its functions; fused operations are taken apart.

    Raises:
        ValueError: No GraphDef, or a fused operation with a part that TF.js itself does not know.
    """
    tf = need("tensorflow", extra="convert")
    json_format = need("google.protobuf.json_format", extra="convert")
    try:
        graph = json_format.ParseDict(topology, tf.compat.v1.GraphDef(), ignore_unknown_fields=True)
    except json_format.ParseError as e:
        raise ValueError(f"its modelTopology is no graph: {e}") from e
    for node in [*graph.node, *(n for function in graph.library.function for n in function.node_def)]:
        if node.op == "Const" and node.name in weights:
            values = weights[node.name]
            dtype = tf.dtypes.as_dtype(node.attr["dtype"].type)
            # TF.js has no int64, float64 and so on: the graph keeps the type that it was converted from
            cast = values if values.dtype == object else values.astype(dtype.as_numpy_dtype)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(cast, dtype, values.shape))
    plain = type(graph)(library=graph.library, versions=graph.versions)
    if not plain.versions.producer:
        plain.versions.producer = tf.version.GRAPH_DEF_VERSION
    vectors = {n.name for n in graph.node if n.op == "Const" and len(n.attr["value"].tensor.tensor_shape.dim) == 1}
    for node in graph.node:
        _add(plain, node, vectors)
    return plain


def _add(graph: Any, node: Any, vectors: Set[str]) -> None:
    """`node` at the end of `graph`, in plain operations; the last of them has its name.

    What a fused operation calls BiasAdd may add a whole tensor; only constant `vectors` surely are biases.
    """
    if node.op == "Prelu":
        data = [i for i in node.input if not i.startswith("^")]
        _prelu(graph, node.name, data[0], data[1], node.attr["T"].type or 1)
        return
    if node.op not in PLAIN:
        graph.node.add().CopyFrom(node)
        return
    op, attributes = PLAIN[node.op]
    data = [i for i in node.input if not i.startswith("^")]
    parts = [part.decode() for part in node.attr["fused_ops"].list.s if part != b"NoOp"]
    arguments = iter(data[2:])
    names = [f"{node.name}/unfused_{i}" for i in range(len(parts))] + [node.name]
    base = graph.node.add(name=names[0], op=op, input=[*data[:2], *(i for i in node.input if i.startswith("^"))])
    for key in attributes:
        if key in node.attr:
            base.attr[key].CopyFrom(node.attr[key])
    for part, before, name in zip(parts, names, names[1:], strict=False):
        if part == "Prelu":
            _prelu(graph, name, before, next(arguments), node.attr["T"].type)
            continue
        if part != "BiasAdd" and part not in UNARY:
            raise ValueError(f"its operation {node.name!r} is fused with {part}")
        made = graph.node.add(name=name, op=part, input=[before])
        made.attr["T"].CopyFrom(node.attr["T"])
        if part == "BiasAdd":
            made.input.append(next(arguments))
            if made.input[1].split(":")[0] not in vectors:
                made.op = "AddV2"
            elif "data_format" in node.attr:
                made.attr["data_format"].CopyFrom(node.attr["data_format"])
        if part == "LeakyRelu" and "leakyrelu_alpha" in node.attr:
            made.attr["alpha"].CopyFrom(node.attr["leakyrelu_alpha"])


def _prelu(graph: Any, name: str, x: str, alpha: str, dtype: int) -> None:
    """relu(x) + (-alpha) * relu(-x), the form in which Keras writes it and converters look for it."""
    steps = (
        ("positive", "Relu", (x,)),
        ("negated", "Neg", (x,)),
        ("negative", "Relu", (f"{name}/negated",)),
        ("factor", "Neg", (alpha,)),
        ("scaled", "Mul", (f"{name}/factor", f"{name}/negative")),
        ("", "AddV2", (f"{name}/positive", f"{name}/scaled")),
    )
    for step, op, inputs in steps:
        made = graph.node.add(name=f"{name}/{step}" if step else name, op=op, input=inputs)
        made.attr["T"].type = dtype
