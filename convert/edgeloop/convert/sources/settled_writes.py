"""A SavedModel that writes into its variables at every call, and always the same: what TF-MOT pruned or clustered, and
was saved with the wrappers. After one call it keeps no state any more, and its writes can be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.calls import first_axes_agree, fixed_batch
from edgeloop.convert.samples import synthetic
from edgeloop.convert.sources.source_value import Call

WRITE = "AssignVariableOp"
READ = "ReadVariableOp"
BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile", "Switch", "RefSwitch"})
NOTE = "The model writes the same values into its variables at every call, as pruning and clustering do: they stay."


def writes_from_variables_alone(function: Any) -> bool:
    """Whether no value that the function writes, nor whether it does, depends on its inputs, by its graph."""
    graph = function.graph.as_graph_def()
    places = [graph.node, *(f.node_def for f in graph.library.function)]
    branches = any(node.op in BRANCHES for nodes in places for node in nodes)
    return not branches and all(_from_variables(nodes) for nodes in places)


def settle(call: Call, inputs: Sequence[TensorSpec], variables: Sequence[Any]) -> bool:
    """Call the function on generated inputs, twice; whether the second call left its variables as they were.

    Their values are then the same after every call, for nothing else goes into them.
    """
    whole, size = not first_axes_agree(inputs), fixed_batch(inputs) or 1
    seen = []
    for batch in synthetic(inputs, whole=whole, count=2 if whole else 2 * size).batches(1 if whole else size):
        call(batch)
        seen.append([np.array(variable) for variable in variables])
    return all(np.array_equal(before, after) for before, after in zip(*seen, strict=True))


def _from_variables(nodes: Any) -> bool:
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        if node.op != WRITE:
            continue
        waiting, seen = [_node(node.input[1])], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            source = by_name.get(name)
            if source is None or source.op == "Placeholder":
                return False  # an argument of the function
            if source.op != READ:
                waiting += [_node(value) for value in source.input if not value.startswith("^")]
    return True


def _node(tensor: str) -> str:
    return tensor.split(":")[0]
