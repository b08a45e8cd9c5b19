"""Graphs as golden files keep them: short lists, what is usual left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeloop.files.graph_facts import GraphFacts, Step, Value


def to_json(graph: GraphFacts) -> dict[str, Any]:
    """Short lists, what is usual left out: a model of 100 operators takes about 10 kB."""
    return {
        "values": [_row(value) for value in graph.values],
        "steps": [[s.op, list(s.inputs), list(s.outputs), dict(s.options), s.custom] for s in graph.steps],
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
    }


def from_json(document: Mapping[str, Any]) -> GraphFacts:
    return GraphFacts(
        values=tuple(_from_row(*row) for row in document["values"]),
        steps=tuple(
            Step(op=op, inputs=tuple(inputs), outputs=tuple(outputs), options=options, custom=custom)
            for op, inputs, outputs, options, custom in document["steps"]
        ),
        inputs=tuple(document["inputs"]),
        outputs=tuple(document["outputs"]),
    )


def _row(value: Value) -> list[Any]:
    rest = {
        "free": value.free,
        "constant_bytes": value.constant_bytes,
        "values": None if value.values is None else list(value.values),
        "zero": value.zero,
        "scales": value.scales,
        "variable": value.variable,
    }
    return [list(value.shape), value.dtype, {name: value for name, value in rest.items() if value}]


def _from_row(shape: list[int], dtype: str, rest: dict[str, Any]) -> Value:
    values = rest.get("values")
    known = {**rest, "values": None if values is None else tuple(values)}
    return Value(shape=tuple(shape), dtype=dtype, **known)
