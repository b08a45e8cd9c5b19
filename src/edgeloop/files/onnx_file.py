"""An .onnx file in; its ends, operators and weights out. Nothing is run.

Source of the field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeloop.files.mapped import mapped
from edgeloop.files.protobuf import fields, messages, text, varint, whole
from edgeloop.files.tensor_facts import tensor_facts
from edgeloop.files.tensor_types import onnx_type


def read_onnx(path: Path) -> dict[str, Any]:
    """What inspect shows.

    Raises:
        ValueError: Damaged, or without a graph.
    """
    model = mapped(path)
    graphs = messages(model, 7)
    if not graphs:
        raise ValueError("no graph")
    weights = [_weight(tensor) for tensor in messages(graphs[-1], 5)]
    named = {weight["name"] for weight in weights}
    sides = [[_end(v) for v in messages(graphs[-1], n) if text(v, 1) not in named] for n in (11, 12)]
    return {
        "format": "onnx",
        "opset": max((whole(entry, 2) for entry in messages(model, 8) if not text(entry, 1)), default=None),
        "signatures": {"": {"inputs": sides[0], "outputs": sides[1]}},
        "operators": dict(_operators(model, graphs[-1])),
        "parameters": sum(math.prod(weight["shape"]) for weight in weights),
        "weights": weights,
    }


def _operators(model: memoryview, graph: memoryview) -> Counter[str]:
    """Of the graph, the graphs in its nodes (If, Loop, Scan) and the model's own functions."""
    found: Counter[str] = Counter()
    left = [*messages(graph, 1), *(node for function in messages(model, 25) for node in messages(function, 7))]
    while left:
        node = left.pop()
        found[text(node, 4)] += 1
        for attribute in messages(node, 5):
            left += [inner for n in (6, 11) for body in messages(attribute, n) for inner in messages(body, 1)]
    return found


def _weight(tensor: memoryview) -> dict[str, Any]:
    return {"name": text(tensor, 8), "shape": list(_sizes(tensor)), "dtype": onnx_type(whole(tensor, 2))}


def _sizes(tensor: memoryview) -> Iterator[int]:
    """`dims`, packed or not."""
    for number, value in fields(tensor):
        if number != 1:
            continue
        if isinstance(value, int):
            yield value
        else:
            at = 0
            while at < len(value):
                size, at = varint(value, at)
                yield size


def _end(value: memoryview) -> dict[str, Any]:
    kind, dims = 0, None
    for number, tensor in ((n, v) for t in messages(value, 2) for n, v in fields(t)):
        if number == 1 and isinstance(tensor, memoryview):
            kind = whole(tensor, 1)
            shapes = messages(tensor, 2)  # a tensor without one has any number of dimensions
            dims = [_dim(dim) for dim in messages(shapes[-1], 1)] if shapes else None
    return tensor_facts(text(value, 1), dims, onnx_type(kind))


def _dim(dim: memoryview) -> int | str | None:
    """A size, a name, or neither; exporters also write -1, and 0 for a size that is not known."""
    return text(dim, 2) or whole(dim, 1) or None
