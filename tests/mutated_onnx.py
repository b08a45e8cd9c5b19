"""ONNX models with a few changes that a broken exporter or an enemy could make: `mutated_model(model, seed)`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from mutated_files import mutated

SIZES = (-(2**40), -1, 0, 1, 2, 3, 7, 255, 2**12, 2**31 - 1, 2**31, 2**40, 2**62)
NUMBERS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e-45, 1e38)
# of one, two and more inputs; with and without attributes; two that do not exist
KINDS = (
    *(
        "Relu",
        "Add",
        "MatMul",
        "Conv",
        "Reshape",
        "Concat",
        "Slice",
        "Gather",
        "Softmax",
        "Resize",
        "LSTM",
        "Loop",
        "If",
    ),
    *("TopK", "Pad", "Tile", "Expand", "Range", "ConstantOfShape", "Split", "Einsum", "Cast", "NonZero", "ScatterND"),
    *("DequantizeLinear", "SequenceAt", "Nothing", ""),
)


def mutated_model(model: Any, seed: int) -> bytes:
    """One to three changes of the model's parts; of every fourth, of its bytes instead."""
    if seed % 4 == 3:
        return mutated(model.SerializeToString(), seed)
    rng, copy = random.Random(seed), type(model)()
    copy.CopyFrom(model)
    for _ in range(rng.randint(1, 3)):
        rng.choice(CHANGES)(copy, rng)
    return copy.SerializeToString()


def graphs(graph: Any) -> list[Any]:
    """The graph and those inside its nodes."""
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, *(g for found in inner for g in graphs(found))]


def any_graph(model: Any, rng: random.Random) -> Any:
    return rng.choice(graphs(model.graph))


def any_node(model: Any, rng: random.Random) -> Any:
    graph = any_graph(model, rng)
    return rng.choice(graph.node) if graph.node else model.graph.node.add()


def any_name(model: Any, rng: random.Random) -> str:
    """Of a tensor somewhere in the model, or of none."""
    names = [name for g in graphs(model.graph) for node in g.node for name in (*node.input, *node.output)]
    return rng.choice([*names, *(t.name for t in model.graph.initializer), "", "nothing"])


def attribute(model: Any, rng: random.Random) -> None:
    """Another value, type or name of an attribute."""
    node = any_node(model, rng)
    if not node.attribute:
        return
    a = rng.choice(node.attribute)
    change = rng.randrange(5)
    if change == 0:
        a.i, a.type = rng.choice(SIZES), 2
    elif change == 1:
        a.f, a.type = rng.choice(NUMBERS), 1
    elif change == 2:
        a.type = 7
        a.ints[:] = [rng.choice(SIZES) for _ in range(rng.randint(0, 6))]
    elif change == 3:
        a.s, a.type = rng.choice([b"", b"\xff\xfe", b"NOTSET", b"SAME_UPPER", b"nearest", b"x" * 1000]), 3
    else:
        a.name = rng.choice(["axis", "axes", "pads", "to", "value", ""])


def operator(model: Any, rng: random.Random) -> None:
    node = any_node(model, rng)
    node.op_type = rng.choice(KINDS)
    if rng.random() < 0.1:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "x" * 300])


def wire(model: Any, rng: random.Random) -> None:
    """An input or output of a node gets another name, goes, or comes twice."""
    node, change = any_node(model, rng), rng.randrange(4)
    if change == 0 and node.input:
        node.input[rng.randrange(len(node.input))] = any_name(model, rng)
    elif change == 1 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif change == 2:
        node.input.append(any_name(model, rng))
    elif node.output:
        node.output[rng.randrange(len(node.output))] = any_name(model, rng)


def nodes(model: Any, rng: random.Random) -> None:
    """A node goes, comes twice, or moves."""
    graph = any_graph(model, rng)
    if not graph.node:
        return
    at, change = rng.randrange(len(graph.node)), rng.randrange(3)
    taken = type(graph.node[at])()
    taken.CopyFrom(graph.node[at])
    if change != 1:
        del graph.node[at]
    if change:
        rest = list(graph.node)
        rest.insert(rng.randrange(len(rest) + 1), taken)
        del graph.node[:]
        graph.node.extend(rest)


def weights(model: Any, rng: random.Random) -> None:
    """Another shape, type, name or place of a constant, or less data."""
    graph = any_graph(model, rng)
    if not graph.initializer:
        return
    tensor, change = rng.choice(graph.initializer), rng.randrange(5)
    if change == 0:
        tensor.dims[:] = [rng.choice(SIZES) for _ in range(rng.randint(0, 5))]
    elif change == 1:
        tensor.data_type = rng.randrange(0, 30)
    elif change == 2:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif change == 3:
        tensor.name = any_name(model, rng)
    else:
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(["../x", "/etc/passwd", "", "m.onnx", "x" * 5000])


def ends(model: Any, rng: random.Random) -> None:
    """Another shape, type or name of an input or output of a graph."""
    graph = any_graph(model, rng)
    values = [*graph.input, *graph.output]
    if not values:
        return
    value, change = rng.choice(values), rng.randrange(4)
    if change == 0:
        value.name = any_name(model, rng)
    elif change == 1:
        value.type.tensor_type.elem_type = rng.randrange(0, 30)
    elif change == 2:
        value.type.tensor_type.shape.dim.add().dim_value = rng.choice(SIZES)
    elif value.type.tensor_type.shape.dim:
        value.type.tensor_type.shape.dim[0].dim_value = rng.choice(SIZES)


def versions(model: Any, rng: random.Random) -> None:
    model.ir_version = rng.choice([0, 3, 8, 14, 99, 2**40])
    if model.opset_import:
        model.opset_import[0].version = rng.choice([0, 1, 6, 7, 11, 13, 18, 23, 99, -5])


CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(attribute, attribute, operator, wire, wire, nodes, weights, weights, ends, ends, versions),
)
