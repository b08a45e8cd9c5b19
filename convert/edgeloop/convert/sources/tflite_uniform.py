"""A .tflite of any age and tool in, one that every later step can read out; it computes the same.

Files differ in what LiteRT itself does not mind: TensorFlow before 2.3 wrote operator codes into the deprecated field
alone, which ai-edge-quantizer does not read; tensors may have no names or share one (those in the two branches of an
IF do), and whatever keys by name then takes one for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.convert.forms.flatbuffer_tree import clear_unused, read_tree, write_tree
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite

LARGEST = 127  # of the deprecated field, a byte: it then says "look at the other"


def uniform(data: bytes) -> bytes:
    """`data` with every operator code in both fields, and a name of its own for every tensor. Itself, if so already."""
    model = need("ai_edge_litert.schema_py_generated", extra="edge").Model.GetRootAs(data, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    named = [tensor.name for graph in read_tflite(data).graphs for tensor in graph.tensors]
    both = all(c.BuiltinCode() == _code(c) and c.DeprecatedBuiltinCode() == min(_code(c), LARGEST) for c in codes)
    if both and len(set(named)) == len(named) and "" not in named:
        return data
    tree = read_tree(data)
    fill_codes(tree)
    name_tensors(tree)
    return write_tree(tree)


def with_one_signature(data: bytes, name: str) -> bytes:
    """`data` with the signature `name` alone, its graph first, and what that calls. Itself, if it is so already.

    What measures and quantizes runs one signature and reads the first graph.
    """
    model = read_tflite(data)
    if len(model.signatures) == 1 and model.signatures[0].graph == 0:
        return data
    tree = read_tree(data)
    chosen = next(s for s in tree.signatureDefs if _text(s.signatureKey) == name)
    order, waiting = [], [chosen.subgraphIndex]
    while waiting:
        position = waiting.pop()
        if position not in order:
            order.append(position)
            waiting += [i for _, _, i in _called(tree.subgraphs[position])]
    for position in order:
        for options, field, i in _called(tree.subgraphs[position]):
            setattr(options, field, order.index(i))
    tree.subgraphs = [tree.subgraphs[position] for position in order]
    chosen.subgraphIndex = 0
    tree.signatureDefs = [chosen]
    clear_unused(tree)
    return write_tree(tree)


def _called(graph: Any) -> list[tuple[Any, str, int]]:
    """The graphs that operators of this one name (IF, WHILE, CALL_ONCE): (options, field, position)."""
    found = []
    for op in graph.operators:
        for options in (op.builtinOptions, op.builtinOptions2):
            fields = [name for name in vars(options) if "ubgraph" in name] if options is not None else []
            found += [(options, name, getattr(options, name)) for name in fields]
    return [(options, name, i) for options, name, i in found if isinstance(i, int) and i >= 0]


def fill_codes(tree: Any) -> None:
    """Both fields of each operator code, as TensorFlow has written them since 2.3."""
    for code in tree.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        code.deprecatedBuiltinCode = min(code.builtinCode, LARGEST)


def name_tensors(tree: Any) -> None:
    """A name of its own for every tensor of every graph; the first that has a name keeps it, the ends first of all."""
    used: set[str] = set()
    for position, graph in enumerate(tree.subgraphs):
        inputs, outputs = list(graph.inputs), list(graph.outputs)
        nameless = {**_labels("output", outputs), **_labels("input", inputs)}
        for i in dict.fromkeys([*inputs, *outputs, *range(len(graph.tensors))]):
            name = _text(graph.tensors[i].name) or nameless.get(i, f"tensor_{i}")
            if name in used and position:
                name = f"{_text(graph.name) or f'graph_{position}'}/{name}"
            graph.tensors[i].name = free_name(name, used).encode()


def free_name(name: str, used: set[str]) -> str:
    """`name`, or with a number behind it where that is `used`; it is used from then on."""
    chosen, number = name, 1
    while chosen in used:
        chosen, number = f"{name}_{number}", number + 1
    used.add(chosen)
    return chosen


def _labels(side: str, tensors: Sequence[int]) -> dict[int, str]:
    return {i: f"{side}_{k}" if len(tensors) > 1 else side for k, i in enumerate(tensors)}


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name or ""


def _code(code: Any) -> int:
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
