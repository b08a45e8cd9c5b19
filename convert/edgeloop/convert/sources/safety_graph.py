"""A SavedModel: operations that touch files or run code, in its graph and in every function; assets; sizes.

Field numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saver,saved_object_graph}.proto and
tensorflow/core/framework/{graph,function,node_def,attr_value,tensor,tensor_shape}.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.forbidden_ops import RESTORING, SAVING, forbidden
from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.errors import ModelError
from edgeloop.files.protobuf import fields, messages, text, whole

MAIN = ""  # the place of nodes that are in no function
ITEM_BYTES = {1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 9: 8, 10: 1, 14: 2, 17: 2, 19: 2, 22: 4, 23: 8}  # by DataType
FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
NESTED = 100  # attributes inside attributes; TensorFlow writes one or two


@dataclass(frozen=True, slots=True)
class Node:
    """`inputs` are names of nodes; `calls` of functions, wherever an attribute or the op itself names one."""

    name: str
    op: str
    inputs: tuple[str, ...]
    calls: tuple[str, ...]
    text: Mapping[str, str]


Graph = dict[str, list[Node]]  # place (a function's name, or MAIN) to its nodes


def look_at_saved_model(path: Path) -> list[str]:
    """What of a SavedModel runs code or touches files, op and function named.

    Raises:
        ModelError: A link, asset or second graph file that leads around what is looked at; tensors over 2 GB or NaN.
        ValueError: saved_model.pb is no protobuf.
    """
    _check_files(path)
    found: list[str] = []
    metas = messages(memoryview((path / "saved_model.pb").read_bytes()), 2)
    if not metas:
        raise ValueError("saved_model.pb has no MetaGraphDef")
    for meta in metas:
        for asset in messages(meta, 6):
            name = PurePosixPath(text(asset, 2))
            if name.is_absolute() or ".." in name.parts:
                raise ModelError(f"{path} names the asset {str(name)!r}, which lies outside of it. It is refused.")
        _check_variables(path, meta)
        graph = _graph(path, meta)
        found += _unsafe(meta, graph)
    return list(dict.fromkeys(found))


def _check_files(path: Path) -> None:
    root = path.resolve()
    for file in path.rglob("*"):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise ModelError(f"{file} is a link that leads out of the model. Copy the folder with cp -rL first.")
        if not file.is_file() and not file.is_dir():
            raise ModelError(f"{file} is a broken link, a pipe or a device. A model has plain files only.")
    for other in ("saved_model.cpb", "saved_model.pbtxt"):
        if (path / other).exists():
            raise ModelError(f"{path} holds {other} beside saved_model.pb. Loaders differ on which counts; remove one.")
    if (path / "saved_model.pb").stat().st_size > LIMIT_BYTES:
        raise ModelError(f"{path}: saved_model.pb is larger than the {LIMIT_BYTES} bytes of a protobuf.")


def _check_variables(path: Path, meta: memoryview) -> None:
    for objects in messages(meta, 7):
        for node in messages(objects, 1):
            for variable in messages(node, 7):
                _size(path, text(variable, 6), whole(variable, 1), messages(variable, 2))


def _size(path: Path, name: str, kind: int, shapes: Sequence[memoryview]) -> int:
    """Bytes of a tensor, or 0 where its shape is not known.

    Raises:
        ModelError: Over 2 GB, or a negative size.
    """
    sizes = [whole(dim, 1) for shape in shapes for dim in messages(shape, 2)]
    if any(size < -1 for size in sizes):
        raise ModelError(f"{path}: the tensor {name!r} has the shape {sizes}. Sizes are 0 or more.")
    total = ITEM_BYTES.get(kind, 1)
    for size in sizes:
        total *= max(size, 0)
    if total > LIMIT_BYTES:
        raise ModelError(f"{path}: the tensor {name!r} of shape {sizes} has {total} bytes, more than {LIMIT_BYTES}.")
    return total


def _graph(path: Path, meta: memoryview) -> Graph:
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


def _node(path: Path, definition: memoryview, functions: set[str]) -> Node:
    name, op = "", ""
    inputs: list[str] = []
    calls: list[str] = []
    texts: dict[str, str] = {}
    for number, value in fields(definition):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            name = _utf8(value)
        elif number == 2:
            op = _utf8(value)
        elif number == 3:
            inputs.append(_utf8(value).lstrip("^").split(":")[0])
        elif number == 5:
            key = text(value, 1)
            for attribute in messages(value, 2):
                calls += _called(attribute)
                texts[key] = text(attribute, 2)
                for tensor in messages(attribute, 8):
                    _check_constant(path, name, tensor)
    if op in functions:
        calls.append(op)
    return Node(name, op, tuple(inputs), tuple(calls), texts)


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
    kind = whole(tensor, 1)
    size = _size(path, name, kind, messages(tensor, 2))
    if kind not in FLOATS:
        return
    packed = {1: 5, 2: 6}.get(kind)  # float_val, double_val: what is short enough is written there
    parts = [(part, FLOATS[kind]) for part in messages(tensor, 4)]
    parts += [(part, FLOATS[kind]) for part in (messages(tensor, packed) if packed else [])]
    for part, dtype in parts:
        if len(part) % np.dtype(dtype).itemsize or len(part) > size:
            raise ValueError(f"the constant {name!r} of {size} bytes holds {len(part)}")
        refuse_not_finite(path, name, np.frombuffer(part, dtype))


def _unsafe(meta: memoryview, graph: Graph) -> list[str]:
    saver = memoryview(b"".join(messages(meta, 3)))  # a field given twice is merged, and so are its halves
    filename, save, restore = (_node_name(text(saver, number)) for number in (1, 2, 3))
    live = _reached(graph, _roots(meta), _functions_of_objects(meta))
    saving, restoring = _reached(graph, {save}), _reached(graph, {restore})
    nodes = {node.name: node for node in graph[MAIN]}
    found = []
    for place, members in graph.items():
        for node in members:
            what = forbidden(node.op, node.text)
            at = (place, node.name if place == MAIN else "")
            if node.op in SAVING and (at not in saving or at in restoring or at in live):
                what = "writes files, and not as the saver's own"
            if node.op in RESTORING:
                given = place != MAIN or filename in _reached_names(nodes, node.inputs[:1])
                if at not in restoring or at in live or not given:
                    what = "reads files, and not as the saver's own"
            if what:
                where = f"the function {place!r}" if place != MAIN else f"the graph, as {node.name!r}"
                found.append(f"has the operation {node.op} in {where}, which {what}")
    return found


def _roots(meta: memoryview) -> set[str]:
    """Nodes of the main graph that are run: those of signatures (the initializer is one) and of collections."""
    found = set()
    for entry in messages(meta, 5):
        for definition in messages(entry, 2):
            for side in (*messages(definition, 1), *messages(definition, 2)):
                for info in messages(side, 2):
                    found.add(_node_name(text(info, 1)))
                    for parts in (*messages(info, 4), *messages(info, 5)):  # a sparse tensor's, a composite's
                        found |= {_node_name(_utf8(v)) for _, v in fields(parts) if isinstance(v, memoryview)}
                        found |= {_node_name(text(component, 1)) for component in messages(parts, 2)}
    for entry in messages(meta, 4):
        if text(entry, 1).endswith("op"):  # saved_model_main_op, legacy_init_op: run when loaded
            names = [n for value in messages(entry, 2) for nodes in messages(value, 1) for n in messages(nodes, 1)]
            found |= {_node_name(_utf8(n)) for n in names}
    return found


def _functions_of_objects(meta: memoryview) -> set[str]:
    """Functions that objects carry: methods, initializers of resources, signatures."""
    found = set()
    for objects in messages(meta, 7):
        found |= {text(entry, 1) for entry in messages(objects, 2)}
        for node in messages(objects, 1):
            found |= {_utf8(name) for function in messages(node, 6) for name in messages(function, 1)}
            found |= {text(function, 1) for function in messages(node, 8)}
    return found


def _reached(graph: Graph, nodes: set[str], functions: Set[str] = frozenset()) -> set[tuple[str, str]]:
    """(MAIN, node) and (function, "") of all that runs when these do. A function that is called runs whole."""
    main = {node.name: node for node in graph[MAIN]}
    names = _reached_names(main, tuple(nodes))
    called = {*functions, *(call for name in names if name in main for call in main[name].calls)}
    seen: set[str] = set()
    while called:
        place = called.pop()
        if place not in seen:
            seen.add(place)
            called |= {call for node in graph.get(place, []) for call in node.calls}
    return {(MAIN, name) for name in names} | {(place, "") for place in seen if place != MAIN}


def _reached_names(nodes: Mapping[str, Node], start: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    open_ = list(start)
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += nodes[name].inputs if name in nodes else ()
    return seen


def _node_name(tensor: str) -> str:
    return tensor.split(":")[0]


def _utf8(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")
