"""A float32 ONNX graph and the ranges of its values in, the nodes that compute better, or at all, in float out.

ONNX Runtime has int8 kernels for a part of the operators. What it has none for stays in float between a
DequantizeLinear and a QuantizeLinear, and arithmetic around it with it: x * 0.5 * (1 + Erf(x / 1.41)) would round to 8
bits five times. So does a Softmax behind a mask: -1e9 would take the whole range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.onnx_graph import OnnxGraph

PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# They copy values, or make them of sizes.
MOVERS = frozenset(
    {
        *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Pad", "Slice", "Split"),
        *("Concat", "Gather", "GatherElements", "GatherND", "Tile", "Expand", "DepthToSpace", "SpaceToDepth"),
        *("ReverseSequence", "ConstantOfShape", "EyeLike", "ScatterElements", "ScatterND", "Compress", "OneHot"),
    }
)
SIZES = frozenset({"Shape", "Size"})
# What onnxruntime 1.31 computes in int8 where it stands between a pair, by the graph that it made of one operator and
# its pairs. Relu and Clip are gone there, as the QuantizeLinear behind them clips; Sin, Tanh, Sub, Div, ReduceMean,
# ConvTranspose and the normalizations stayed, between conversions and in float32.
IN_INT8 = frozenset(
    {
        *("Add", "ArgMax", "AveragePool", "Clip", "Conv", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul"),
        *("MaxPool", "Mul", "Relu", "Resize", "Sigmoid", "Softmax", "Where"),
    }
)
JOIN_BEHIND = frozenset({"Add", "Mul", "Where", "Clip", "Relu", "LeakyRelu", "Sigmoid"})
# a mean over positions of values around 0 is small beside them, and what one frequent value is rounded by stays in it
# (behind GroupNormalization 20 dB, in float 37)
JOIN_FAR_BEHIND = "GlobalAveragePool"
JOIN_BEFORE = frozenset({"Add", "Mul"})
COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"})
MASKED = 1e3  # no score of an attention spans so much: a mask does

Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]


def float_nodes(graph: OnnxGraph, ranges: Ranges) -> set[str]:
    """Names of the nodes that are to stay in float."""
    nodes = [node for node in graph.model.graph.node if computes(graph, node) or _moves_floats(graph, node)]
    found = {node.name for node in nodes if computes(graph, node) and node.op_type not in IN_INT8}
    found |= {node.name for node in _masked(graph, ranges)}
    while True:
        entries = {name for node in nodes if node.name in found for name in graph.computed(node)}
        joining = {n.name for n in nodes if n.name not in found and _joins(graph, n, found, entries)}
        if not joining:
            return found
        found |= joining


def computes(graph: OnnxGraph, node: Any) -> bool:
    """Whether a node computes floats. An index that is cast, only to be compared, is none."""
    if node.op_type in MOVERS | PAIRS | SIZES:
        return False
    readers = [reader for name in node.output for reader in graph.read_by.get(name, [])]
    if node.op_type == "Cast" and readers and all(reader.op_type in COMPARISONS for reader in readers):
        return False
    if node.op_type in COMPARISONS and all(_kind(graph, name) == "Cast" for name in graph.computed(node)):
        return False
    return bool(graph.computed(node)) or any(graph.is_float(name) for name in node.output if name)


def _joins(graph: OnnxGraph, node: Any, found: set[str], entries: set[str]) -> bool:
    """Whether a pair between it and nodes in float would cost more than it saves."""
    given = graph.computed(node)
    inside = [name for name in given if name in graph.made_by and graph.made_by[name].name in found]
    before = _read_inside(graph, node, found)
    if node.op_type in MOVERS:
        return before and all(_moved_from(graph, name) in found for name in given)
    if node.op_type == JOIN_FAR_BEHIND:
        return _moved_from(graph, node.input[0]) in found
    behind = bool(inside) and all(name in inside or name in entries for name in given)
    return (before and node.op_type in JOIN_BEFORE) or (behind and node.op_type in JOIN_BEHIND)


def _moved_from(graph: OnnxGraph, name: str) -> str:
    """The name of the node that computed a value, before others moved it about; "" for an input."""
    while name in graph.made_by:
        node = graph.made_by[name]
        if node.op_type not in MOVERS or len(graph.computed(node)) != 1:
            return str(node.name)
        (name,) = graph.computed(node)
    return ""


def _read_inside(graph: OnnxGraph, node: Any, found: set[str]) -> bool:
    readers = [reader.name for name in node.output for reader in graph.read_by.get(name, [])]
    return bool(readers) and found.issuperset(readers) and not graph.ends & set(node.output)


def _masked(graph: OnnxGraph, ranges: Ranges) -> Iterator[Any]:
    """Every Softmax behind a mask, and what the mask passes on its way there."""
    for softmax in [node for node in graph.model.graph.node if node.op_type == "Softmax"]:
        waiting, seen = [softmax.input[0]], set()
        while waiting:
            name = waiting.pop()
            if name in seen:  # sums of sums are reached in 2^n ways
                continue
            seen.add(name)
            if name not in ranges or ranges[name][1] - ranges[name][0] < MASKED or name not in graph.made_by:
                continue
            node = graph.made_by[name]
            if node.op_type in MOVERS | {"Add", "Where", "Mul"}:
                yield softmax
                yield node
                waiting += graph.computed(node)


def _moves_floats(graph: OnnxGraph, node: Any) -> bool:
    return node.op_type in MOVERS and bool(graph.computed(node))


def _kind(graph: OnnxGraph, name: str) -> str:
    return str(graph.made_by[name].op_type) if name in graph.made_by else ""
