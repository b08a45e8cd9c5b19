"""The graph of a SavedModel, read without TensorFlow: nodes by function, what runs when others do, and tensor sizes.

Field numbers: tensorflow/core/protobuf/{meta_graph,saved_object_graph}.proto and
tensorflow/core/framework/{graph,function,node_def,attr_value,tensor,tensor_shape}.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.errors import ModelError
from edgeloop.files.protobuf import fields, messages, text, whole

MAIN = ""  # the place of nodes that are in no function
ITEM_BYTES = {1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 9: 8, 10: 1, 14: 2, 17: 2, 19: 2, 22: 4, 23: 8}  # by DataType
FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
NESTED = 100  # attributes inside attributes; TensorFlow writes one or two


@dataclass(frozen=True, slots=True)
class GraphNode:
    """`inputs` are names of nodes; `calls` of functions, wherever an attribute or the op itself names one."""

    name: str
    op: str
    inputs: tuple[str, ...]
    calls: tuple[str, ...]
    text: Mapping[str, str]


Graph = dict[str, list[GraphNode]]  # place (a function's name, or MAIN) to its nodes


def read_graph(path: Path, meta: memoryview) -> Graph:
    definitions: list[tuple[str, memoryview]] = []
    for graph in messages(meta, 2):
        definitions += [(MAIN, node) for node in messages(graph, 1)]
        for library in messages(graph, 2):
            for function in messages(library, 1):
                name = "".join(text(signature, 1) for signature in messages(function, 1)[-1:])
                definitions += [(name, node) for node in messages(function, 3)]
    names = {place for place, _ in definitions}
    found: Graph = {MAIN: []}
    for place, definition in definitions:
        found.setdefault(place, []).append(_node(path, definition, names))
    return found


def _node(path: Path, definition: memoryview, functions: set[str]) -> GraphNode:
    name, op = "", ""
    inputs: list[str] = []
    calls: list[str] = []
    texts: dict[str, str] = {}
    for number, value in fields(definition):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            name = utf8(value)
        elif number == 2:
            op = utf8(value)
        elif number == 3:
            inputs.append(utf8(value).lstrip("^").split(":")[0])
        elif number == 5:
            key = text(value, 1)
            for attribute in messages(value, 2):
                calls += _called(attribute)
                texts[key] = text(attribute, 2)
                for tensor in messages(attribute, 8):
                    _check_constant(path, name, tensor)
    if op in functions:
        calls.append(op)
    return GraphNode(name, op, tuple(inputs), tuple(calls), texts)


def _called(attribute: memoryview, depth: int = 0) -> Iterator[str]:
    """Names of the functions in an AttrValue: `func`, `list.func`, and in the attributes of those."""
    if depth > NESTED:
        raise ValueError(f"attributes nested more than {NESTED} times")
    listed = [function for entries in messages(attribute, 1) for function in messages(entries, 9)]
    for function in (*messages(attribute, 10), *listed):
        yield text(function, 1)
        for entry in messages(function, 2):
            for inner in messages(entry, 2):
                yield from _called(inner, depth + 1)


def _check_constant(path: Path, name: str, tensor: memoryview) -> None:
    kind, shapes = whole(tensor, 1), messages(tensor, 2)
    size = _size(path, name, kind, shapes)
    if kind not in FLOATS:
        return
    packed = {1: 5, 2: 6}.get(kind)  # float_val, double_val: what is short enough is written there
    parts = [(part, FLOATS[kind]) for part in messages(tensor, 4)]
    parts += [(part, FLOATS[kind]) for part in (messages(tensor, packed) if packed else [])]
    for part, dtype in parts:
        if len(part) % np.dtype(dtype).itemsize or len(part) > size:
            raise ValueError(f"the constant {name!r} of {size} bytes holds {len(part)}")
        values = np.frombuffer(part, dtype)  # fewer than its shape has: the last one is repeated
        refuse_not_finite(path, name, values.reshape(_dims(shapes)) if len(part) == size else values, constant=True)


def check_variables(path: Path, meta: memoryview) -> None:
    for objects in messages(meta, 7):
        for node in messages(objects, 1):
            for variable in messages(node, 7):
                _size(path, text(variable, 6), whole(variable, 1), messages(variable, 2))


def _dims(shapes: Sequence[memoryview]) -> list[int]:
    return [whole(dim, 1) for shape in shapes for dim in messages(shape, 2)]


def _size(path: Path, name: str, kind: int, shapes: Sequence[memoryview]) -> int:
    """Bytes of a tensor, or 0 where its shape is not known.

    Raises:
        ModelError: Over 2 GB, or a negative size.
    """
    sizes = _dims(shapes)
    if any(size < -1 for size in sizes):
        raise ModelError(
            f"{path}: the tensor {name!r} has the shape {sizes}, and a size must be 0 or more",
            advice="Get the model from a source you trust.",
        )
    total = ITEM_BYTES.get(kind, 1)
    for size in sizes:
        total *= max(size, 0)
    if total > LIMIT_BYTES:
        raise ModelError(
            f"{path}: the tensor {name!r} of shape {sizes} has {total} bytes, the limit is {LIMIT_BYTES}",
            advice="Convert a smaller model.",
        )
    return total


def reached(graph: Graph, nodes: set[str], functions: Set[str] = frozenset()) -> set[tuple[str, str]]:
    """(MAIN, node) and (function, "") of all that runs when these do. A function that is called runs whole."""
    main = {node.name: node for node in graph[MAIN]}
    names = reached_names(main, tuple(nodes))
    called = {*functions, *(call for name in names if name in main for call in main[name].calls)}
    seen: set[str] = set()
    while called:
        place = called.pop()
        if place not in seen:
            seen.add(place)
            called |= {call for node in graph.get(place, []) for call in node.calls}
    return {(MAIN, name) for name in names} | {(place, "") for place in seen if place != MAIN}


def reached_names(nodes: Mapping[str, GraphNode], start: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    open_ = list(start)
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += nodes[name].inputs if name in nodes else ()
    return seen


def node_name(tensor: str) -> str:
    return tensor.split(":")[0]


def utf8(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")
