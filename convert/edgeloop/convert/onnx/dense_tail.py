"""The fully connected layers that an ONNX graph ends in: Gemm, or MatMul and Add, with an activation behind each.

Gemm: https://onnx.ai/onnx/operators/onnx__Gemm.html, versions 7 to 13; alpha and beta other than 1 are no layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.extras import need

helper: Any = need("onnx.helper", extra="convert")

ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Relu": "relu", "Tanh": "tanh", "Elu": "elu"}


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """activation(x @ kernel + bias), `kernel` [inputs, units], `bias` [units] or None; named after its node."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str


class DenseTail:
    """Walks a graph of one output backwards, for as long as it is layers.

    Attributes:
        layers: In the order in which they are computed; empty if the graph does not end in one.
        start: ONNX's name of the tensor that the first one takes.
    """

    def __init__(self, graph: Any, constants: Mapping[str, np.ndarray]):
        self._made = {name: node for node in graph.node for name in node.output}
        self._constants = constants
        used = [name for node in graph.node for name in node.input]
        self._shared = {name for name in used if used.count(name) > 1} | {v.name for v in graph.output}
        self.layers: tuple[DenseLayer, ...] = ()
        self.start = graph.output[0].name
        self._rank = len(graph.output[0].type.tensor_type.shape.dim)  # 0: not said, mostly 2
        while (found := self._before(self.start, last=not self.layers)) is not None:
            layer, self.start = found
            self.layers = (layer, *self.layers)
            if self.start in self._shared:
                break

    def _before(self, name: str, last: bool) -> tuple[DenseLayer, str] | None:
        """The layer that makes the tensor, and the tensor that it takes."""
        node, activation = self._made.get(name), ""
        if node is not None and node.op_type in ACTIVATIONS and self._is_whole(node, last):
            activation, name = ACTIVATIONS[node.op_type], node.input[0]
            node = self._made.get(name)
            if name in self._shared:
                return None
        if node is None:
            return None
        product = self._gemm(node) if node.op_type == "Gemm" else self._product(node)
        if product is None:
            return None
        x, kernel, bias = product
        if bias is not None and bias.shape != kernel.shape[1:]:  # one number for all units, which trains as one
            return None
        return DenseLayer(node.name or node.output[0], kernel, bias, activation), x

    def _is_whole(self, node: Any, last: bool) -> bool:
        """Whether the activation is Keras's: Softmax over the last axis, Elu with alpha 1."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Softmax":
            axis = given.get("axis", -1)
            return last and (axis == -1 or axis == self._rank - 1 or (axis == 1 and not self._rank))
        return given.get("alpha", 1.0) == 1.0

    def _gemm(self, node: Any) -> tuple[str, np.ndarray, np.ndarray | None] | None:
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
            return None
        kernel = self._weights(node.input[1], 2)
        bias = self._weights(node.input[2], 1) if len(node.input) > 2 and node.input[2] else None
        if kernel is None or (bias is None and len(node.input) > 2 and node.input[2]):
            return None
        return node.input[0], kernel.T if given.get("transB", 0) else kernel, bias

    def _product(self, node: Any) -> tuple[str, np.ndarray, np.ndarray | None] | None:
        bias = None
        if node.op_type == "Add":
            for name, other in (node.input, node.input[::-1]):
                added = self._weights(other, 1)
                if added is not None and name in self._made and name not in self._shared:
                    node, bias = self._made[name], added
                    break
        if node.op_type != "MatMul":
            return None
        kernel = self._weights(node.input[1], 2)
        return None if kernel is None else (node.input[0], kernel, bias)

    def _weights(self, name: str, rank: int) -> np.ndarray | None:
        found = self._constants.get(name)
        return found if found is not None and found.ndim == rank and found.dtype == np.float32 else None
