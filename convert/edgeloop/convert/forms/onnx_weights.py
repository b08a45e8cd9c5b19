"""A float32 ONNX graph in, the same with biases that make up for int8 weights, and with int8 weights of float nodes.

Why biases: bias.py. Both before ONNX Runtime's quantizer, which rounds the weights as `int8_of` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.onnx_graph import OnnxGraph, is_matrix
from edgeloop.extras import need

LEAST_VALUES = 16
# the axis of a float node's weights that has a scale for each of its channels
CHANNELS = {"ConvTranspose": 1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1, "Conv": 0}


def mean_axes(graph: OnnxGraph, in_float: Collection[str]) -> dict[str, int]:
    """{input of a Conv, Gemm or MatMul with constant weights: its axis of channels}."""
    found: dict[str, set[int]] = {}
    for node, _ in _weighted(graph, in_float):
        axis = 1 if node.op_type == "Conv" else graph.ranks[node.input[0]] - 1
        found.setdefault(node.input[0], set()).add(axis)
    return {name: axes.pop() for name, axes in found.items() if len(axes) == 1}


def correct_biases(graph: OnnxGraph, in_float: Collection[str], means: Mapping[str, np.ndarray]) -> None:
    """Add what rounded weights lose on average; a MatMul of matrices becomes a Gemm, which has a bias."""
    for node, weights in list(_weighted(graph, in_float)):
        mean = means.get(node.input[0])
        if mean is None or not np.isfinite(mean).all():
            continue
        turned = node.op_type == "Gemm" and _attribute(node, "transB", 0)
        columns = weights if node.op_type == "Conv" or turned else weights.T  # [out, in of a group, ...]
        lost = columns - _rounded(columns)
        taps = lost.reshape(*lost.shape[:2], -1).sum(axis=2).astype(np.float64)
        groups, rest = divmod(len(mean), taps.shape[1])
        if rest or len(taps) % groups:
            continue
        grouped = taps.reshape(groups, -1, taps.shape[1])
        _add_bias(graph, node, np.einsum("goi,gi->go", grouped, mean.reshape(groups, -1)).ravel())


def shrink_weights(graph: OnnxGraph, in_float: Collection[str]) -> None:
    """Matrices that only nodes in float read, as int8 behind a DequantizeLinear of the constant's name."""
    onnx = need("onnx", extra="convert")
    unpacked = []
    for name, tensor in list(graph.constants.items()):
        readers, value = graph.read_by.get(name, []), graph.value(name)
        if value is None or value.size < LEAST_VALUES or not is_matrix(value.shape) or name in graph.ends:
            continue
        if not readers or not all(node.name in in_float for node in readers) or not np.isfinite(value).all():
            continue
        axis = CHANNELS.get(readers[0].op_type, value.ndim - 1)
        steps, scales = int8_of(value, axis)
        graph.model.graph.initializer.remove(tensor)
        small, scale = graph.add_constant(f"{name}/int8", steps), graph.add_constant(f"{name}/scale", scales)
        zero = graph.add_constant(f"{name}/zero", np.zeros(scales.shape, np.int8))
        make = onnx.helper.make_node
        unpacked.append(make("DequantizeLinear", [small, scale, zero], [name], name=f"{name}/unpacked", axis=axis))
    nodes = [*unpacked, *graph.model.graph.node]
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(nodes)


def int8_of(value: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps, int8, and scales, float32 [channels]: symmetric, one a channel."""
    others = tuple(i for i in range(value.ndim) if i != axis)
    scales = np.abs(value).max(axis=others) / np.float32(127)
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(value.ndim)]
    return np.clip(np.rint(value / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def _rounded(columns: np.ndarray) -> np.ndarray:
    steps, scales = int8_of(columns, 0)
    return steps * scales.reshape(-1, *[1] * (columns.ndim - 1))


def _weighted(graph: OnnxGraph, in_float: Collection[str]) -> Iterator[tuple[Any, np.ndarray]]:
    """Nodes with weights of their own: shared ones (an unrolled loop) have no single input to correct for."""
    for node in graph.model.graph.node:
        if node.name in in_float or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weights = graph.value(node.input[1])
        if weights is None or len(graph.read_by[node.input[1]]) > 1:
            continue
        if node.input[0] not in graph.ranks or node.input[0] in graph.constants:
            continue
        plain = node.op_type != "Gemm" or (_attribute(node, "transA", 0), _attribute(node, "alpha", 1.0)) == (0, 1.0)
        if plain and (node.op_type == "Conv" or weights.ndim == 2):
            yield node, weights


def _add_bias(graph: OnnxGraph, node: Any, shift: np.ndarray) -> None:
    if node.op_type == "MatMul":
        _add_to_sum(graph, node, shift)
        return
    own = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if own is None or own.size not in (1, shift.size) or _attribute(node, "beta", 1.0) != 1.0:
        return
    name = graph.add_constant(f"{node.output[0]}/bias", (own.ravel() + shift).astype(np.float32))
    node.input[:] = [*node.input[:2], name]


def _add_to_sum(graph: OnnxGraph, node: Any, shift: np.ndarray) -> None:
    """Into the constant that is added behind a MatMul; where none is, and for matrices, as a Gemm."""
    readers, out = graph.read_by.get(node.output[0], []), node.output[0]
    while len(readers) == 1 and readers[0].op_type == "Reshape" and out not in graph.ends:
        out = readers[0].output[0]
        readers = graph.read_by.get(out, [])
    if len(readers) == 1 and readers[0].op_type == "Add" and out not in graph.ends:
        add = readers[0]
        for i, name in enumerate(add.input):
            value = graph.value(name)
            if name != out and value is not None and value.size == shift.size == value.shape[-1]:
                bias = (value + shift.reshape(value.shape)).astype(np.float32)
                add.input[i] = graph.add_constant(f"{add.output[0]}/bias", bias)
                return
    if graph.ranks.get(node.input[0]) == 2:
        node.op_type = "Gemm"
        node.input.append(graph.add_constant(f"{node.output[0]}/bias", shift.astype(np.float32)))


def _attribute(node: Any, name: str, default: Any) -> Any:
    onnx = need("onnx", extra="convert")
    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default
