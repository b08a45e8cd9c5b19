"""A SavedModel scanned for operations that touch files or run code, in its graph and in every function; its files.

Field numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saver,saved_object_graph}.proto
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from edgeloop.convert.sources.forbidden_ops import RESTORING, SAVING, forbidden
from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.convert.sources.saved_model_graph import (
    MAIN,
    Graph,
    check_variables,
    node_name,
    reached,
    reached_names,
    read_graph,
    utf8,
)
from edgeloop.errors import ModelError
from edgeloop.files.protobuf import fields, messages, text


def scan_saved_model(path: Path) -> list[str]:
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
                raise ModelError(
                    f"{path} names the asset {str(name)!r}, which lies outside its folder",
                    advice="Get the model from a source you trust.",
                )
        check_variables(path, meta)
        graph = read_graph(path, meta)
        found += _unsafe(meta, graph)
    return list(dict.fromkeys(found))


def _check_files(path: Path) -> None:
    root = path.resolve()
    for file in path.rglob("*"):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise ModelError(
                f"{file} is a link to a file outside the model",
                advice="Copy the folder with cp -rL, and convert the copy.",
            )
        if not file.is_file() and not file.is_dir():
            raise ModelError(
                f"{file} is a broken link, a pipe or a device file", advice="A model may hold plain files only."
            )
    for other in ("saved_model.cpb", "saved_model.pbtxt"):
        if (path / other).exists():
            raise ModelError(
                f"{path} holds {other} beside saved_model.pb",
                advice="Loaders differ in which one they read. Remove one of them.",
            )
    if (path / "saved_model.pb").stat().st_size > LIMIT_BYTES:
        raise ModelError(
            f"{path}: saved_model.pb is larger than the {LIMIT_BYTES} bytes that a protobuf can hold",
            advice="Get the model from a source you trust.",
        )


def _unsafe(meta: memoryview, graph: Graph) -> list[str]:
    saver = memoryview(b"".join(messages(meta, 3)))  # a field given twice is merged, and so are its halves
    filename, save, restore = (node_name(text(saver, number)) for number in (1, 2, 3))
    live = reached(graph, _roots(meta), _functions_of_objects(meta))
    saving, restoring = reached(graph, {save}), reached(graph, {restore})
    nodes = {node.name: node for node in graph[MAIN]}
    found = []
    for place, members in graph.items():
        for node in members:
            what = forbidden(node.op, node.text)
            at = (place, node.name if place == MAIN else "")
            if node.op in SAVING and (at not in saving or at in restoring or at in live):
                what = "writes files, and not as the saver's own"
            if node.op in RESTORING:
                given = place != MAIN or filename in reached_names(nodes, node.inputs[:1])
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
                    found.add(node_name(text(info, 1)))
                    for parts in (*messages(info, 4), *messages(info, 5)):  # a sparse tensor's, a composite's
                        found |= {node_name(utf8(v)) for _, v in fields(parts) if isinstance(v, memoryview)}
                        found |= {node_name(text(component, 1)) for component in messages(parts, 2)}
    for entry in messages(meta, 4):
        if text(entry, 1).endswith("op"):  # saved_model_main_op, legacy_init_op: run when loaded
            names = [n for value in messages(entry, 2) for nodes in messages(value, 1) for n in messages(nodes, 1)]
            found |= {node_name(utf8(n)) for n in names}
    return found


def _functions_of_objects(meta: memoryview) -> set[str]:
    """Functions that objects carry: methods, initializers of resources, signatures."""
    found = set()
    for objects in messages(meta, 7):
        found |= {text(entry, 1) for entry in messages(objects, 2)}
        for node in messages(objects, 1):
            found |= {utf8(name) for function in messages(node, 6) for name in messages(function, 1)}
            found |= {text(function, 1) for function in messages(node, 8)}
    return found
