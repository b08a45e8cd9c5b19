"""A Keras model rebuilt on device gradients, its first layers frozen, its last activation taken off for the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeloop.convert.training.losses import Loss, check_loss, inferred_loss
from edgeloop.errors import ModelError, OptionsError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True)
class TrainableModel:
    """
    Attributes:
        model: Inputs as the source's, in order; ends in what `loss` takes.
        end: The activation that turns that into the source's answer: "softmax", "sigmoid", "" for none.
    """

    model: Any
    loss: Loss
    end: str


def trainable_copy(model: Any, loss: Loss | None, train_last: int | None) -> TrainableModel:
    """The functional `model` with the same weights.

    Raises:
        ModelError: A layer without device gradients, an output the loss does not fit, nothing left to train.
        OptionsError: `train_last` is more than there are layers with weights.
    """
    keras = need("keras", extra="convert")
    from edgeloop.convert.training.activations import ACTIVATIONS
    from edgeloop.convert.training.layers import trainable_layer

    _check_operations(model)
    if len(model.outputs) != 1 or len(model.outputs[0].shape) < 2:
        shapes = [tuple(o.shape) for o in model.outputs]
        raise ModelError(
            f"the model has the outputs {shapes}", advice="A trainable model has one output [batch, ..., units]."
        )
    copy = keras.models.clone_model(model, clone_function=trainable_layer, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in frozen_layers(copy, train_last):
        layer.trainable = False
    if not copy.trainable_variables:
        raise ModelError(
            f"the model {model.name!r} has no trainable weights", advice="Set trainable = True on some layers."
        )
    last, units = _output_layer(copy), model.outputs[0].shape[-1]
    own = getattr(last, "activation", None)
    end = next((name for name in ("softmax", "sigmoid") if own is ACTIVATIONS[getattr(keras.activations, name)]), "")
    if loss is not None:
        check_loss(loss, end, units)
    loss = loss or inferred_loss(end, units)
    if loss is Loss.MSE or not end:
        return TrainableModel(copy, loss, "")
    last.activation = ACTIVATIONS[keras.activations.linear]
    return TrainableModel(keras.Model(copy.inputs, copy.outputs), loss, end)


def frozen_layers(model: Any, train_last: int | None) -> list[Any]:
    """All layers up to the last one with weights that is not among the last `train_last` of those.

    Raises:
        OptionsError: There are not that many layers with weights.
    """
    if train_last is None:
        return []
    layers = list(leaves(model))
    weighted = [i for i, layer in enumerate(layers) if layer.weights]
    if train_last > len(weighted):
        raise OptionsError(
            f"--train-last is {train_last}, and {model.name!r} has {len(weighted)} layers with weights",
            advice="Pass at most that many.",
        )
    kept = weighted[: len(weighted) - train_last]
    return layers[: kept[-1] + 1] if kept else []


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models within it, in the order of `model.layers`."""
    keras = need("keras", extra="convert")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def _output_layer(model: Any) -> Any:
    keras = need("keras", extra="convert")
    sequential = isinstance(model, keras.Sequential)
    last = model.layers[-1] if sequential else model.get_layer(model.output_names[0])
    return _output_layer(last) if isinstance(last, keras.Model) else last


def _check_operations(model: Any) -> None:
    """Raises: ModelError: A function of keras.ops between the layers, which keeps TensorFlow's own gradient."""
    keras = need("keras", extra="convert")
    for operation in getattr(model, "operations", ()):
        if not isinstance(operation, keras.layers.Layer):
            raise ModelError(
                f"operation {operation.name!r} is keras.ops.{type(operation).__name__}, not a layer",
                advice=(
                    "Use a layer (Add, Multiply, Concatenate, Reshape, Activation, ...), or convert without "
                    "--trainable."
                ),
            )
        if isinstance(operation, keras.Model):
            _check_operations(operation)
