"""A .tflite of any age and tool in, one that every later step can read out; it computes the same.

Files differ in what LiteRT itself does not mind: TensorFlow before 2.3 wrote operator codes into the deprecated field
alone, which ai-edge-quantizer does not read; tensors may have no names or share one (those in the two branches of an
IF do), and whatever keys by name then takes one for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
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
