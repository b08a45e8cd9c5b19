"""A bundle and new weights in; a bundle whose trainable variant starts from those weights out. No TensorFlow.

The file of the variant gives each of its variables a constant when it is first called. Those constants are replaced,
and the rest of the file stays. A large kernel lies in several variables, some rows in each. Equal constants share one
place in a file, so each gets a place of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import new_folder
from edgeloop.bundle import MANIFEST, TRAINABLE, Bundle, file_entries, read_bundle
from edgeloop.convert.forms.flatbuffer_tree import clear_unused, read_tree, write_tree
from edgeloop.errors import ModelError
from edgeloop.files.schema import OPERATORS

KINDS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CONCATENATION")
VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE, CONCATENATION = map(OPERATORS.index, KINDS)
RESULT = "bundle"  # in the folder of a run
AGAIN = "Convert the model again with --trainable."


def write_trained_bundle(
    bundle: Bundle, weights: Mapping[str, np.ndarray], out: Path, version: int | None = None
) -> Bundle:
    """Write a bundle's next release, or release `version`, to `out`: its trainable variant alone, with these weights.

    Other variants hold the old weights, and so do the reference outputs: they are left out.

    Raises:
        ModelError: The file does not tell which constant belongs to which weight.
        WriteError: `out` cannot be written.
    """
    variant = bundle.variant(TRAINABLE)
    with new_folder(out) as folder:
        for name in variant.files:
            data = bundle.file(name).read_bytes()
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(with_weights(data, weights) if name == variant.entry else data)
        manifest = replace(
            bundle.manifest,
            version=version or bundle.manifest.version + 1,
            variants=(variant,),
            files=file_entries(folder),
            left_out=(),
            proof_sha256=None,
        )
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return read_bundle(out)


def with_weights(model: bytes, weights: Mapping[str, np.ndarray]) -> bytes:
    """A trainable .tflite that starts from `weights` {w000: array of the same shape, float32}.

    Raises:
        ModelError: A weight has no variable, or no constants of its size.
    """
    tree = read_tree(model)
    variables = weight_variables(tree)
    unknown = sorted(set(weights) - set(variables))
    if unknown:
        raise ModelError(f"the trainable file has no variable for the weight {unknown[0]}", advice=AGAIN)
    for name, parts in variables.items():
        data = np.ascontiguousarray(weights[name], np.float32).tobytes() if name in weights else b""
        places = [list(_constants(tree, variable)) for variable in parts]
        sizes = [{len(_constant(tree, graph, op)) for graph, op in part} for part in places]
        if any(len(size) != 1 for size in sizes) or sum(map(sum, sizes)) != len(data):
            raise ModelError(f"the trainable file has no constant for the weight {name}", advice=AGAIN)
        start = 0
        for part, (size,) in zip(places, sizes, strict=True):
            _replace(tree, part, data[start : start + size])
            start += size
    clear_unused(tree)
    return write_tree(tree)


def weight_variables(tree: Any) -> dict[str, list[bytes]]:
    """The variables behind each weight that `get_weights` returns: one, or those that hold its rows, in order.

    Raises:
        ModelError: There is no such signature.
    """
    signature = next((s for s in tree.signatureDefs or () if s.signatureKey == b"get_weights"), None)
    if signature is None:
        raise ModelError("the trainable file has no signature get_weights", advice=AGAIN)
    graph = tree.subgraphs[signature.subgraphIndex]
    handles = _handles(tree, graph)
    read = {int(op.outputs[0]): handles[int(op.inputs[0])] for op in _operators(tree, graph, READ_VARIABLE)}
    joined = {int(op.outputs[0]): list(map(int, op.inputs)) for op in _operators(tree, graph, CONCATENATION)}

    def behind(tensor: int) -> list[bytes]:
        if tensor in joined:
            return [variable for part in joined[tensor] for variable in behind(part)]
        return [read[tensor]] if tensor in read else []

    found = {output.name.decode(): behind(output.tensorIndex) for output in signature.outputs}
    return {name: parts for name, parts in found.items() if parts}


def all_variables(tree: Any) -> set[bytes]:
    """Names of all variables of a file, those of its optimizer among them."""
    return {name for graph in tree.subgraphs for name in _handles(tree, graph).values()}


def _constants(tree: Any, variable: bytes) -> Iterator[tuple[Any, Any]]:
    """The operators, with their graph, that give a variable its constant."""
    for graph in tree.subgraphs:
        handles = _handles(tree, graph)
        for op in _operators(tree, graph, ASSIGN_VARIABLE):
            if handles.get(int(op.inputs[0])) == variable and len(_constant(tree, graph, op)):
                yield graph, op


def _constant(tree: Any, graph: Any, op: Any) -> Any:
    """The bytes that an operator assigns; none where it computes them."""
    data = tree.buffers[graph.tensors[op.inputs[1]].buffer].data
    return b"" if data is None else data


def _replace(tree: Any, places: Iterable[tuple[Any, Any]], data: bytes) -> None:
    for graph, op in places:
        tensor = copy.copy(graph.tensors[op.inputs[1]])
        buffer = copy.copy(tree.buffers[tensor.buffer])
        buffer.data = np.frombuffer(data, np.uint8)
        tree.buffers.append(buffer)
        tensor.buffer = len(tree.buffers) - 1
        graph.tensors.append(tensor)
        op.inputs[1] = len(graph.tensors) - 1


def _handles(tree: Any, graph: Any) -> dict[int, bytes]:
    return {int(op.outputs[0]): op.builtinOptions.sharedName for op in _operators(tree, graph, VAR_HANDLE)}


def _operators(tree: Any, graph: Any, code: int) -> Iterator[Any]:
    for op in graph.operators:
        kind = tree.operatorCodes[op.opcodeIndex]
        if max(kind.builtinCode, kind.deprecatedBuiltinCode) == code:
            yield op
