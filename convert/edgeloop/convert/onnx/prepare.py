"""An ONNX model made plain before its nodes are walked: no functions, every free dimension named, GELU as one node."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeloop.convert.onnx.gelu import find_gelu
from edgeloop.convert.onnx.value import Unsupported
from edgeloop.extras import need

onnx: Any = need("onnx", extra="convert")
helper: Any = need("onnx.helper", extra="convert")
numpy_helper: Any = need("onnx.numpy_helper", extra="convert")
inliner: Any = need("onnx.inliner", extra="convert")
shape_inference: Any = need("onnx.shape_inference", extra="convert")

STANDARD = ("", "ai.onnx")  # both names of ONNX's own operators
DEPTH = 5  # functions in functions in functions
WEIGHT = 1024  # elements from which a constant is a weight, which no shape depends on


def prepared(model: Any, known: Container[str]) -> Any:
    """A copy without functions: the model's own, and the standard ones that are not `known`.

    Raises:
        Unsupported: An operator that is not known has no body, or one that cannot be written down for this node.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if copy.functions:
        copy = inliner.inline_local_functions(copy)
    name_free_dimensions(copy)
    for graph in graphs(copy.graph):
        find_gelu(graph)
    for _ in range(DEPTH):
        used = {node.op_type for graph in graphs(copy.graph) for node in graph.node if node.domain in STANDARD}
        composite = sorted(name for name in used if name not in known)
        if not composite:
            break
        try:
            # a body may depend on shapes and types, so these are inferred first; those of constants are not
            describe_constants(copy.graph)
            copy = shape_inference.infer_shapes(copy, data_prop=True)
            copy = inliner.inline_selected_functions(copy, [("", name) for name in composite], False, True)
        except Exception as e:  # any type, also of a standard operator that has no body
            raise Unsupported(f"the operator {', '.join(composite)} ({e})") from e
    return copy


def describe_constants(graph: Any) -> None:
    """Write types and shapes of initializers into `value_info`, where the inliner looks for them."""
    described = {value.name for value in (*graph.input, *graph.value_info)}
    graph.value_info.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer if t.name not in described
    )


def split_weights(model: Any, outside: Mapping[str, np.ndarray] = MappingProxyType({})) -> dict[str, np.ndarray]:
    """Take large constants of the main graph out of the proto, so that copies and inference of it are cheap.

    Their types and shapes stay in `value_info`. The arrays of those in `outside` are known already.
    """
    weights: dict[str, np.ndarray] = {}
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    nodes = []
    for node in graph.node:
        value = constant_tensor(node)
        if value is not None and math.prod(value.dims) >= WEIGHT:
            tensors[node.output[0]] = value  # Paddle writes weights so
        else:
            nodes.append(node)
    for name, tensor in tensors.items():
        if math.prod(tensor.dims) >= WEIGHT:
            weights[name] = outside[name] if name in outside else numpy_helper.to_array(tensor)
    if not weights:
        return weights
    infos = [helper.make_tensor_value_info(name, tensors[name].data_type, tensors[name].dims) for name in weights]
    small = [t for t in graph.initializer if t.name not in weights]
    inputs = [v for v in graph.input if v.name not in weights]  # before IR 4 weights are listed there too
    infos += [v for v in graph.value_info if v.name not in weights]
    replace(graph.node, nodes)
    replace(graph.initializer, small)
    replace(graph.input, inputs)
    replace(graph.value_info, infos)
    return weights


def replace(field: Any, protos: Iterable[Any]) -> None:
    """Give a repeated field of a proto these members, some of which may be its own."""
    copies = [type(proto).FromString(proto.SerializeToString()) for proto in protos]
    del field[:]
    field.extend(copies)


def constant_tensor(node: Any) -> Any:
    """The tensor of a Constant node; None of other nodes."""
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1:
        return None
    return node.attribute[0].t if node.attribute[0].name == "value" else None


def name_free_dimensions(model: Any) -> None:
    """Give every nameless dimension of an input, and every one of size -1 (Paddle), a name: it is free."""
    for i, value in enumerate(model.graph.input):
        for j, d in enumerate(value.type.tensor_type.shape.dim):
            if not d.dim_param and (not d.HasField("dim_value") or d.dim_value < 0):
                d.dim_param = f"free_{i}_{j}"


def graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those in the attributes of its nodes (If, Loop, Scan)."""
    yield graph
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.HasField("g"):
            yield from graphs(attribute.g)


def dimension_names(model: Any, shapes: Mapping[str, Sequence[int | None]]) -> dict[str, list[str]]:
    """What onnx's inference calls the free dimensions of every tensor, in ONNX's order: equal names, equal sizes.

    `shapes`: sizes of the inputs. The names are a help, no more: without any every dimension is like no other.
    """
    graph = _inferred(model, shapes)
    found = (v for v in (*graph.input, *graph.value_info) if v.type.HasField("tensor_type"))
    return {v.name: [d.dim_param for d in v.type.tensor_type.shape.dim] for v in found}


def largest_tensor(model: Any, shapes: Mapping[str, Sequence[int | None]]) -> tuple[str, int, bool]:
    """Name and number of elements of the largest tensor of the main graph whose sizes follow from those of the inputs,
    and whether there are tensors whose sizes do not.

    With `shapes` of all inputs; ("", 0, True) where onnx's inference fails.
    """
    graph = _inferred(model, shapes, declared_outputs=False)
    sizes: dict[str, int] = {}
    unknown = any(a.HasField("g") for node in model.graph.node for a in node.attribute)  # bodies may be large
    for v in (*graph.input, *graph.value_info, *graph.output):
        dims = v.type.tensor_type.shape.dim
        unknown |= not v.type.tensor_type.HasField("shape") or not all(d.HasField("dim_value") for d in dims)
        sizes[v.name] = math.prod(d.dim_value if d.HasField("dim_value") else 1 for d in dims)
    made = {name for node in model.graph.node for name in node.output if name}
    return *max(sizes.items(), key=lambda pair: pair[1], default=("", 0)), unknown or not made <= sizes.keys()


def _inferred(model: Any, shapes: Mapping[str, Sequence[int | None]], *, declared_outputs: bool = True) -> Any:
    """The main graph with shapes of its inputs and of what its nodes make; empty where onnx's inference fails.

    `declared_outputs`: the shapes that the model gives its outputs count too, which an exporter may have written wrong.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared = {v.name for v in copy.graph.output}
    for value in (*copy.graph.input, *copy.graph.output):
        dims = value.type.tensor_type.shape.dim
        for d, fixed in zip(dims, shapes.get(value.name, []), strict=False):
            if fixed is not None:
                d.dim_value = fixed
    constants = {v.name for v in copy.graph.value_info} - declared
    produced = {name for node in copy.graph.node for name in node.output}
    # of weights alone: what an exporter wrote of others may be wrong
    replace(copy.graph.value_info, [v for v in copy.graph.value_info if v.name in constants - produced])
    for value in () if declared_outputs else copy.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception:  # any type
        return onnx.GraphProto()
