"""Keras layers rebuilt with gradients that a device can run: the same weights, the same numbers.

`LAYERS` says which Keras layer becomes which; a layer that is not there is refused by its path. A layer of ours takes
its Keras layer's config, overrides `call`, and refuses in `check`, given the Keras layer, an option it cannot honour.
"""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training import layers_image, layers_vector
from edgeloop.convert.training.activations import ACTIVATIONS
from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.extras import need

L: Any = need("keras", extra="convert").layers

AS_THEY_ARE = (
    L.InputLayer,
    L.Flatten,
    L.Reshape,
    L.Add,
    L.Concatenate,
    L.Multiply,
    L.GlobalAveragePooling1D,
    L.GlobalAveragePooling2D,
    L.GlobalMaxPooling1D,
    L.GlobalMaxPooling2D,
    L.ZeroPadding2D,
)
LAYERS: dict[type, Any] = {
    **{kind: kind for kind in AS_THEY_ARE},
    L.Conv2D: layers_image.Conv2D,
    L.DepthwiseConv2D: layers_image.DepthwiseConv2D,
    L.SeparableConv2D: layers_image.SeparableConv2D,
    L.MaxPooling2D: layers_image.MaxPooling2D,
    L.AveragePooling2D: layers_image.AveragePooling2D,
    L.Dense: layers_vector.Dense,
    L.Embedding: layers_vector.Embedding,
    L.LSTM: layers_vector.LSTM,
    L.GRU: layers_vector.GRU,
    L.BatchNormalization: layers_vector.BatchNormalization,
    L.LayerNormalization: layers_vector.LayerNormalization,
    L.Dropout: layers_vector.Dropout,
    L.Activation: L.Activation,
    L.ReLU: layers_vector.ReLU,
    L.LeakyReLU: layers_vector.LeakyReLU,
    L.Softmax: layers_vector.Softmax,
}


def trainable_layer(layer: Any) -> Any:
    """A layer with the config of `layer` and device gradients.

    Raises:
        ModelError: Its kind, activation or an option of it is not supported; names the layer and what is.
    """
    kind = LAYERS.get(type(layer))
    if kind is None:
        supported = ", ".join(sorted(k.__name__ for k in LAYERS))
        raise layer_refusal(
            layer, f"is a {type(layer).__name__}, which has no device gradient", f"Supported: {supported}."
        )
    if layer.dtype_policy.compute_dtype != "float32" and type(layer) is not L.InputLayer:
        raise layer_refusal(layer, f"computes in {layer.dtype_policy.compute_dtype}", "Build the model in float32.")
    for name in ("activation", "recurrent_activation"):
        _check_activation(layer, getattr(layer, name, None))
    if hasattr(kind, "check"):
        kind.check(layer)
    twin = kind.from_config(layer.get_config())
    if "activation" in vars(twin):  # a property, of the cell, in recurrent layers: those look it up themselves
        twin.activation = ACTIVATIONS[twin.activation]
    return twin


def _check_activation(layer: Any, activation: Any) -> None:
    """By identity, not by name: a function of the user's own may be called relu."""
    if activation is not None and activation not in ACTIVATIONS:
        found = getattr(activation, "__name__", type(activation).__name__)
        known = ", ".join(a.__name__ for a in ACTIVATIONS)
        raise layer_refusal(layer, f"uses the activation {found}, which has no device gradient", f"Supported: {known}.")
