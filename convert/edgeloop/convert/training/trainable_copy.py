"""A Keras model rebuilt on device gradients, its first layers frozen, its last activation taken off for the loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.convert.training.device_graph import graph_nodes, output_operation, walk
from edgeloop.convert.training.frozen import frozen_layers, trained_ids
from edgeloop.convert.training.losses import Loss, check_loss, inferred_loss
from edgeloop.convert.training.refusals import check_gradients
from edgeloop.convert.training.twins import end_of, twins_of, without_activation
from edgeloop.errors import ModelError
from edgeloop.extras import need

keras: Any = need("keras", extra="convert")

Tensor = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainableModel:
    """
    Attributes:
        run: The source's inputs in order, and whether it trains, to what `loss` takes.
        weights: TensorFlow's variables in the order of the source's `get_weights`; several for an array whose rows are
            spread over them.
        trained: Those of them that the optimizer moves.
        kept: Every other variable that `run` reads.
        end: The activation that turns what `run` gives into the source's answer: "softmax", "sigmoid", "" for none.
    """

    run: Callable[[Sequence[Tensor], bool], Tensor]
    weights: list[list[Any]]
    trained: list[Any]
    kept: list[Any]
    loss: Loss
    end: str


def check_trainable(model: Any, loss: Loss | None, train_last: int | None) -> None:
    """Everything that refuses the functional `model`, before anything is built.

    Raises:
        ModelError: Layers without device gradients, an output the loss does not fit, nothing left to train.
        OptionsError: `train_last` is more than there are layers with weights.
    """
    if len(model.outputs) != 1 or len(model.outputs[0].shape) < 2:
        shapes = [tuple(o.shape) for o in model.outputs]
        raise ModelError(
            f"the model has outputs of the shapes {shapes}, and a trainable model has one [batch, ..., units]",
            advice="Build the model with one such output.",
        )
    if not trained_ids(model, train_last):
        raise ModelError(
            f"the model {model.name!r} has no trainable weights", advice="Set trainable = True on some layers."
        )
    check_gradients(model, train_last)
    if loss is not None:
        check_loss(loss, end_of(output_operation(model)), model.outputs[0].shape[-1])


def trainable_copy(model: Any, loss: Loss | None, train_last: int | None, batch: int) -> TrainableModel:
    """The functional `model` with the same weights.

    Raises:
        ModelError, OptionsError: As `check_trainable`.
    """
    check_trainable(model, loss, train_last)
    last, trained = output_operation(model), trained_ids(model, train_last)
    end = end_of(last)
    loss = loss or inferred_loss(end, model.outputs[0].shape[-1])
    twins = twins_of(model, trained)
    if loss is Loss.MSE or not end:
        end = ""
    else:
        twins[id(last)] = without_activation(twins[id(last)])
    _build(model, twins, batch)
    ours = _with_weights(model, twins)
    still = _still(model, twins, train_last)

    def run(inputs: Sequence[Tensor], training: bool) -> Tensor:
        def visit(node: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
            twin = twins[id(node.operation)]
            if _takes_training(twin):
                kwargs = {**kwargs, "training": training and id(node.operation) not in still}
            return twin(*args, **kwargs)

        return walk(model, inputs, visit)[0]

    spread = {id(twin.kernel): twin.split() for twin in twins.values() if getattr(twin, "split", None)}
    spread = {key: parts for key, parts in spread.items() if parts}
    weights = {id(v): spread.get(id(ours[id(v)]), [ours[id(v)].value]) for v in model.weights}
    return TrainableModel(
        run=run,
        weights=[weights[id(v)] for v in model.weights],
        trained=[part for v in model.weights if id(v) in trained for part in weights[id(v)]],
        kept=[v.value for twin in twins.values() for v in getattr(twin, "variables", ()) if id(v) not in spread],
        loss=loss,
        end=end,
    )


def _build(model: Any, twins: dict[int, Any], batch: int) -> None:
    """Make the weights of each twin, by a walk over shapes. The source's own layers gain no node by it."""

    def visit(node: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        twin = twins[id(node.operation)]
        if twin is node.operation or not isinstance(twin, keras.Layer):
            return node.operation.compute_output_spec(*args, **kwargs)
        return twin(*args, **kwargs)

    walk(model, [keras.KerasTensor((batch, *t.shape[1:]), t.dtype) for t in model.inputs], visit)


def _with_weights(model: Any, twins: dict[int, Any]) -> dict[int, Any]:
    """Copy the source's weights; the twin's variable by the id of the source's."""
    ours: dict[int, Any] = {}
    for node in graph_nodes(model):
        layer, twin = node.operation, twins[id(node.operation)]
        if not getattr(layer, "weights", ()):
            continue
        if twin is not layer:
            twin.set_weights(layer.get_weights())
        ours.update({id(v): w for v, w in zip(layer.weights, twin.weights, strict=True)})
    return ours


def _still(model: Any, twins: dict[int, Any], train_last: int | None) -> set[int]:
    """The ids of layers in inference mode even in training: frozen ones, and those that are the source's own."""
    frozen = {id(layer) for layer in frozen_layers(model, train_last)}
    own = {key for key, twin in twins.items() if key == id(twin)}
    return frozen | own


def _takes_training(twin: Any) -> bool:
    return "training" in inspect.signature(getattr(twin, "call", twin)).parameters


def idle_layers(model: Any, train_last: int | None) -> tuple[str, ...]:
    """Names of layers, not frozen, that act in Keras's training, and on the device do what they do at inference."""
    frozen = {id(layer) for layer in frozen_layers(model, train_last)}
    twins = twins_of(model, trained_ids(model, train_last))
    layers = [node.operation for node in graph_nodes(model) if id(node.operation) not in frozen]
    return tuple(dict.fromkeys(layer.name for layer in layers if _is_idle(layer, twins[id(layer)])))


def _is_idle(layer: Any, twin: Any) -> bool:
    return (twin is layer and _takes_training(layer)) or getattr(twin, "idle", False)
