"""A SavedModel's folder in; its signatures, operators and variables out. No TensorFlow, and nothing is run.

Sources of the field numbers: saved_model, meta_graph, saved_object_graph and trackable_object_graph.proto of
https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/protobuf; names in a checkpoint:
https://www.tensorflow.org/guide/checkpoint#loading_mechanics
"""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from typing import Any

from edgeloop.files.checkpoint_index import read_checkpoint_index
from edgeloop.files.mapped import mapped
from edgeloop.files.protobuf import messages, text, whole
from edgeloop.files.tensor_facts import tensor_facts
from edgeloop.files.tensor_types import tf_shape, tf_type
from edgeloop.files.weights import with_weights

INDEX = Path("variables") / "variables.index"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # the end of a variable's key


def read_saved_model(path: Path) -> dict[str, Any]:
    """What inspect shows; `path` is the saved_model.pb.

    `parameters` is None where the folder has no variables: they are constants of the graph then.

    Raises:
        ValueError: Damaged, or without a graph.
    """
    graphs = messages(mapped(path), 2)
    if not graphs:
        raise ValueError("no MetaGraphDef")
    index = path.parent / INDEX
    found: dict[str, Any] = {"parameters": None, "weights": []}
    if index.is_file():
        found = with_weights(_variables(index, graphs[0]))
    return {"format": "savedmodel", "signatures": _signatures(graphs[0]), "operators": _operators(graphs[0]), **found}


def _signatures(graph: memoryview) -> dict[str, Any]:
    signatures = {}
    for entry in messages(graph, 5):
        definition = messages(entry, 2)[-1]
        sides = [[_end(item) for item in messages(definition, number)] for number in (1, 2)]
        signatures[text(entry, 1)] = {"inputs": sides[0], "outputs": sides[1]}
    signatures.pop("__saved_model_init_op", None)
    return signatures


def _operators(graph: memoryview) -> dict[str, int]:
    """Of the graph and of the functions it calls, among them the bodies of If and While."""
    operators: Counter[str] = Counter()
    for part in messages(graph, 2):
        operators.update(text(node, 2) for node in messages(part, 1))
        for library in messages(part, 2):
            operators.update(text(node, 2) for function in messages(library, 1) for node in messages(function, 3))
    return dict(operators)


def _end(entry: memoryview) -> dict[str, Any]:
    info = messages(entry, 2)[-1]
    shapes = messages(info, 3)
    return tensor_facts(text(entry, 1), tf_shape(shapes[-1]) if shapes else None, tf_type(whole(info, 2)))


def _variables(index: Path, graph: memoryview) -> list[dict[str, Any]]:
    """By the names that the model gave them, where the file says them, else by their keys."""
    names, rows = _names(graph), []
    entries = read_checkpoint_index(mapped(index))
    twice = any(row["name"].startswith("variables/") for row in entries)
    for row in entries:
        key = row["name"]
        if twice and key.startswith("_all_variables/"):  # Keras 3 exports a copy of each
            continue
        if row["dtype"] != "string" and row["shape"] is not None:  # the graph of objects is a string beside them
            slot = "/.OPTIMIZER_SLOT/" in key
            rows.append({**row, "name": key.removesuffix(VALUE) if slot else names.get(key, key.removesuffix(VALUE))})
    return rows


def _names(graph: memoryview) -> dict[str, str]:
    """Names of variables by key: a key is the shortest path to a variable through the objects that hold it."""
    nodes = [node for objects in messages(graph, 7) for node in messages(objects, 1)]
    paths: dict[int, str] = {0: ""} if nodes else {}
    left, found = deque(paths), {}
    while left:
        at = left.popleft()
        for variable in messages(nodes[at], 7):
            if name := text(variable, 6):
                state = paths[at].split("/")[0] if paths[at].startswith(("optimizer", "_optimizer")) else ""
                found[paths[at] + VALUE] = f"{state}/{name}" if state else name
        for child in messages(nodes[at], 1):
            number, local = whole(child, 1), text(child, 2).replace(".", "..").replace("/", ".S")
            if 0 <= number < len(nodes) and number not in paths:
                paths[number] = f"{paths[at]}/{local}" if paths[at] else local
                left.append(number)
    return found
