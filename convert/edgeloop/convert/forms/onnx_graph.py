"""An ONNX model in, who makes and who reads each of its values out; bodies of loops count as part of their node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edgeloop.extras import need


class OnnxGraph:
    """Attributes:
    model: The model, with shapes inferred; its nodes have names of their own.
    types: {value: element type}, as far as they are known.
    constants: {name: the initializer}.
    made_by: {value: the node}.
    read_by: {value: nodes}, in order; a node that reads it twice is there once.
    ends: Names of the model's outputs.
    """

    def __init__(self, model: Any) -> None:
        onnx = need("onnx", extra="convert")
        self.model = onnx.shape_inference.infer_shapes(model)
        graph = self.model.graph
        without_unused(graph)
        ordered(graph)
        values = [*graph.input, *graph.value_info, *graph.output]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.ends = {value.name for value in graph.output}
        self.made_by: dict[str, Any] = {}
        self.read_by: dict[str, list[Any]] = {}
        named: set[str] = set()
        for i, node in enumerate(graph.node):
            if not node.name or node.name in named:  # what stays in float is told by its name
                node.name = f"{node.name or node.op_type}/{i}"
            named.add(node.name)
            for name in node.output:
                self.made_by[name] = node
            for name in dict.fromkeys(reads(node)):
                self.read_by.setdefault(name, []).append(node)

    def is_float(self, name: str) -> bool:
        """Unknown types count: what is not known may compute floats."""
        onnx = need("onnx", extra="convert")
        return self.types.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT

    def computed(self, node: Any) -> list[str]:
        """The float values that a node reads, other than constants."""
        return [name for name in dict.fromkeys(reads(node)) if name not in self.constants and self.is_float(name)]

    def value(self, name: str) -> np.ndarray | None:
        """A float constant."""
        onnx = need("onnx", extra="convert")
        tensor = self.constants.get(name)
        return onnx.numpy_helper.to_array(tensor) if tensor is not None and self.is_float(name) else None

    def add_constant(self, name: str, value: np.ndarray) -> str:
        onnx = need("onnx", extra="convert")
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return name


def reads(node: Any) -> Iterator[str]:
    """Names of a node's inputs, and of what its bodies read from outside of them."""
    yield from (name for name in node.input if name)
    for body in (part.g for part in node.attribute if part.HasField("g")):
        own = {value.name for value in (*body.input, *body.initializer)}
        own |= {name for inner in body.node for name in inner.output}
        for inner in body.node:
            yield from (name for name in reads(inner) if name not in own)
        yield from (value.name for value in body.output if value.name not in own)


def ordered(graph: Any) -> None:
    """Put every node behind those that make what it reads. ONNX Runtime forgets that a body reads values, too."""
    nodes = list(graph.node)
    place = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{place[name] for name in reads(node) if name in place} for node in nodes]
    if all(max(before, default=-1) < i for i, before in enumerate(needs)):
        return
    order: dict[int, None] = {}
    waiting = list(reversed(range(len(nodes))))
    while waiting:
        i = waiting[-1]
        missing = sorted(needs[i] - order.keys())
        if i not in order and missing and len(waiting) <= 2 * len(nodes):  # longer is a circle: for the checker
            waiting += reversed(missing)
            continue
        order[waiting.pop()] = None
    copies = [type(nodes[i])() for i in order]
    for made, i in zip(copies, order, strict=True):
        made.CopyFrom(nodes[i])
    del graph.node[:]
    graph.node.extend(copies)


def weight_bytes(graph: Any) -> int:
    """Of all constant matrices, those of bodies too."""
    onnx = need("onnx", extra="convert")
    bodies = [part.g for node in graph.node for part in node.attribute if part.HasField("g")]
    own = sum(onnx.numpy_helper.to_array(t).nbytes for t in graph.initializer if is_matrix(t.dims))
    return int(own) + sum(weight_bytes(body) for body in bodies)


def is_matrix(shape: Iterable[int]) -> bool:
    """Rather than a number, or one for each channel."""
    return sum(size > 1 for size in shape) > 1


def without_unused(graph: Any) -> None:
    """Leave out the constants that nothing reads."""
    used = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
