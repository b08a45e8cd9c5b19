"""A graph of ONNX in, the outputs whose values lie in 0..1 by construction out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

BOUNDED = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
# what moves values or takes means or extremes of them
MOVING = frozenset(
    {
        *("Flatten", "Gather", "Identity", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    }
)


def bounded_outputs(graph: Any, outer: Mapping[str, tuple[Any, int]] = MappingProxyType({})) -> list[str]:
    """Names of the outputs of a GraphProto that end in a sigmoid or softmax, in both branches of an If too, which may
    lie outside of these: `outer` has the node, and which of its outputs, that makes each tensor there."""
    made = {**outer, **{name: (node, i) for node in graph.node for i, name in enumerate(node.output) if name}}

    def is_bounded(name: str) -> bool:
        while name in made:
            node, i = made[name]
            if node.op_type == "If":
                bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
                return all(body.output[i].name in bounded_outputs(body, made) for body in bodies)
            if node.op_type not in MOVING:
                return node.op_type in BOUNDED
            name = node.input[0]
        return False

    return [value.name for value in graph.output if is_bounded(value.name)]
