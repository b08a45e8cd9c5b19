"""Nodes of a frozen graph that TF.js lacks, or refuses, as others; what is written needs the shapes of their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from edgeloop.convert.forms.graph_nodes import data_inputs, tensor_name
from edgeloop.convert.forms.node_functions import write_as

REVERSED = "ReverseSequence"
NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
MAKERS = {"Conv2D": (3,), "DepthwiseConv2dNative": (2, 3)}  # axes of the weights whose product is the channels made

KEEPERS = frozenset({  # of the channels of their first input
    "Identity", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "MaxPool", "AvgPool",
    "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign",
})  # fmt: skip


def needs_shapes(graph: Any) -> bool:
    """Whether any node here is to be written otherwise, as far as that can be told without shapes."""
    nodes = {node.name: node for node in graph.node}
    return any(
        node.op == REVERSED or (node.op == "Conv2D" and _made(nodes, node.input[0]) != _weights(nodes, node)[2:3])
        for node in graph.node
    )


def write_grouped_convolutions(graph: Any, shapes: Mapping[str, Any]) -> None:
    """Conv2D of several groups: one of a channel each as DepthwiseConv2dNative, others as a convolution of each group.

    TF.js refuses weights whose depth is not that of the input (4.22); its depthwise one takes unequal strides.
    """
    for node in [node for node in graph.node if node.op == "Conv2D"]:
        weights, channels = shapes[tensor_name(node.input[1])], shapes[tensor_name(node.input[0])][-1:]
        if not weights or not channels or None in (*weights, *channels) or channels == weights[2:3]:
            continue  # of an unknown rank too, as what a loop reads from a list
        kind = node.attr["T"].type
        options = {
            "strides": list(node.attr["strides"].list.i),
            "padding": node.attr["padding"].s.decode(),
            "explicit_paddings": list(node.attr["explicit_paddings"].list.i),
            "dilations": list(node.attr["dilations"].list.i) or [1] * 4,
        }
        compute = partial(_grouped, groups=channels[0] // weights[2], shape=weights, options=options)
        write_as(graph, node, compute, [(name, kind) for name in data_inputs(node)])


def write_reversed_sequences(graph: Any, shapes: Mapping[str, Any]) -> None:
    """ReverseSequence as a gather of the steps of each row."""
    for node in [node for node in graph.node if node.op == REVERSED]:
        rank = len(shapes[tensor_name(node.input[0])])
        given = list(zip(data_inputs(node), (node.attr["T"].type, node.attr["Tlen"].type), strict=True))
        where = {"time": node.attr["seq_dim"].i, "batch": node.attr["batch_dim"].i}
        if rank:
            write_as(graph, node, partial(_reversed, rank=rank, **where), given)


def write_norms(graph: Any) -> None:
    """FusedBatchNorm in training, as Keras 2's LayerNormalization has it: TF.js takes the mean and variance from its
    inputs, which are empty, and answers NaN."""
    for node in [node for node in graph.node if is_training(node)]:
        kind, axes = node.attr["T"].type, [0, 2, 3] if node.attr["data_format"].s == b"NCHW" else [0, 1, 2]
        compute = partial(_normalized, axes=axes, epsilon=node.attr["epsilon"].f)
        write_as(graph, node, compute, [(name, kind) for name in data_inputs(node)[:3]])


def is_training(node: Any) -> bool:
    """A FusedBatchNorm that measures the mean and variance of its input."""
    return node.op in NORMS and ("is_training" not in node.attr or node.attr["is_training"].b)


def _normalized(tf: Any, x: Any, scale: Any, offset: Any, *, axes: list[int], epsilon: float) -> Any:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    off = x - mean
    answer = off * tf.math.rsqrt(tf.reduce_mean(off * off, axes, keepdims=True) + epsilon)
    return answer * tf.reshape(scale, tf.shape(mean)) + tf.reshape(offset, tf.shape(mean))


def _weights(nodes: Mapping[str, Any], node: Any) -> list[int]:
    """The shape of a convolution's constant weights."""
    found = nodes[node.input[1].split(":")[0]]
    while found.op == "Identity":
        found = nodes[found.input[0].split(":")[0]]
    return [d.size for d in found.attr["value"].tensor.tensor_shape.dim] if found.op == "Const" else []


def _made(nodes: Mapping[str, Any], name: str) -> list[int]:
    """The channels of a tensor: those of the convolution or input before it; none where anything else made them."""
    node = nodes[name.split(":")[0]]
    while node.op in KEEPERS:
        node = nodes[node.input[0].split(":")[0]]
    if node.op == "Placeholder":
        return [d.size for d in node.attr["shape"].shape.dim][-1:]
    weights = _weights(nodes, node) if node.op in MAKERS else []
    product = 1
    for axis in MAKERS.get(node.op, ()) if len(weights) == 4 else ():
        product *= weights[axis]
    return [product] if weights else []


def _grouped(tf: Any, x: Any, w: Any, *, groups: int, shape: Sequence[int], options: Mapping[str, Any]) -> Any:
    height, width, depth, outputs = shape
    if depth == 1:
        turned = tf.reshape(w, [height, width, groups, outputs // groups])
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=turned, **options)
    parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1), strict=True)
    return tf.concat([tf.raw_ops.Conv2D(input=a, filter=b, **options) for a, b in parts], -1)


def _reversed(tf: Any, x: Any, lengths: Any, *, rank: int, time: int, batch: int) -> Any:
    x.set_shape([None] * rank)
    rest = [axis for axis in range(rank) if axis not in (batch, time)]
    order = [batch, time, *rest]
    rows = tf.transpose(x, order)
    steps, ends = tf.range(tf.shape(rows)[1])[None], tf.cast(lengths, tf.int32)[:, None]
    turned = tf.gather(rows, tf.where(steps < ends, ends - 1 - steps, steps + 0 * ends), batch_dims=1)
    return tf.transpose(turned, [order.index(axis) for axis in range(rank)])
