"""For each layer and operation of a model, what computes it on a device: with a gradient where one passes."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.activations import ACTIVATIONS
from edgeloop.convert.training.device_graph import graph_nodes, nodes_with_gradients
from edgeloop.convert.training.layers import trainable_layer
from edgeloop.convert.training.operations import device_operation
from edgeloop.errors import ModelError
from edgeloop.extras import need

keras: Any = need("keras", extra="convert")

ENDS = ("softmax", "sigmoid")


def twins_of(model: Any, trained: set[int]) -> dict[int, Any]:
    """By the id of the source's layer or operation. What no gradient passes may be the source's own."""
    moving = {id(node.operation) for node in nodes_with_gradients(model, trained)}
    return {
        id(operation): _twin(operation, gradient=id(operation) in moving)
        for operation in {id(node.operation): node.operation for node in graph_nodes(model)}.values()
    }


def _twin(operation: Any, *, gradient: bool) -> Any:
    if not isinstance(operation, keras.Layer):
        return device_operation(operation) if gradient else operation
    try:
        return trainable_layer(operation)
    except ModelError:
        if gradient:
            raise
        return operation


def end_of(operation: Any) -> str:
    """The last activation of the output's layer or operation, one of ENDS or "" for another."""
    if not isinstance(operation, keras.Layer):
        name = type(operation).__name__.lower()
        return name if name in ENDS and operation.__module__.startswith("keras.") else ""
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    own = getattr(_innermost(operation), "activation", None)
    return next((name for name in ENDS if own is getattr(keras.activations, name)), "")


def without_activation(twin: Any) -> Any:
    """A twin that gives what its last activation would take."""
    if not isinstance(twin, keras.Layer):
        return lambda x: x
    _innermost(twin).activation = ACTIVATIONS[keras.activations.linear]
    return twin


def _innermost(layer: Any) -> Any:
    return _innermost(layer.layer) if isinstance(layer, keras.layers.TimeDistributed) else layer
