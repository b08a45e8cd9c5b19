"""The graph of a Keras model, walked node by node: with other callables in the place of its layers and operations.

Nested models are walked through, whether functional or Sequential. A subclassed one has no graph and is one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.extras import need

keras: Any = need("keras", extra="convert")

Visit = Callable[[Any, tuple, dict[str, Any]], Any]


def walk(model: Any, inputs: Sequence[Any], visit: Visit) -> list[Any]:
    """The values of the model's outputs.

    Args:
        inputs: A value of any kind for each input of the model.
        visit: (node, args, kwargs) to the values of the node's outputs. `node.operation` is a layer or an operation of
            keras.ops; args and kwargs are those of its call, with values in the place of tensors.
    """
    graph = graph_of(model)
    values = {id(t): value for t, value in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(values)
            if graph_of(node.operation) is None:
                found = visit(node, args, kwargs)
            else:
                found = walk(node.operation, [values[id(t)] for t in node.input_tensors], visit)
            values.update({id(t): value for t, value in zip(node.outputs, _flat(found), strict=True)})
    return [values[id(t)] for t in graph.outputs]


def _flat(found: Any) -> list[Any]:
    """A tree of what a call gave, as a list; None is a value here."""
    return found if isinstance(found, list) else keras.tree.flatten(found)


def graph_of(operation: Any) -> Any:
    """The functional model that a model is or holds; None for what has no graph."""
    graph = getattr(operation, "_functional", None) or operation  # a Sequential's
    return graph if isinstance(graph, keras.Model) and hasattr(graph, "_nodes_by_depth") else None


def output_operation(model: Any) -> Any:
    """The layer or operation whose result is the model's first output."""
    history = graph_of(model).outputs[0]._keras_history
    return output_operation(history.operation) if graph_of(history.operation) is not None else history.operation


def graph_nodes(model: Any) -> list[Any]:
    """Every call of a layer or an operation, in an order in which they can be made."""
    nodes: list[Any] = []

    def visit(node: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        nodes.append(node)
        return [None] * len(node.outputs)

    walk(model, [None] * len(model.inputs), visit)
    return nodes


@dataclass(frozen=True, slots=True)
class _Moving:
    """Stands for a tensor: whether a trained weight has a part in it."""

    moves: bool


def nodes_with_gradients(model: Any, trained: set[int]) -> list[Any]:
    """The nodes that a gradient passes on its way to a variable whose id is in `trained`."""
    found = []

    def visit(node: Any, args: tuple, kwargs: dict[str, Any]) -> list[_Moving]:
        moves = any(isinstance(a, _Moving) and a.moves for a in keras.tree.flatten((args, kwargs)))
        moves = moves or any(id(v) in trained for v in getattr(node.operation, "trainable_variables", ()))
        if moves:
            found.append(node)
        return [_Moving(moves)] * len(node.outputs)

    walk(model, [_Moving(False)] * len(model.inputs), visit)
    return found
