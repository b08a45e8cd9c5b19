"""Keras layers rebuilt with gradients that a device can run: the same weights, the same numbers.

`LAYERS` says which Keras layer becomes which; a layer that is not there is refused by its path. A layer of ours is made
by `of`, or of its Keras layer's config; it overrides `call`, and `check`, given the Keras layer, refuses an option that
it cannot honour.
"""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training import layers_image, layers_recurrent, layers_series, layers_vector
from edgeloop.convert.training.activations import ACTIVATIONS
from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.errors import ModelError
from edgeloop.extras import need

L: Any = need("keras", extra="convert").layers

AS_THEY_ARE = (
    *(L.InputLayer, L.Flatten, L.Reshape, L.Permute, L.Identity, L.ActivityRegularization, L.Rescaling),
    *(L.Add, L.Subtract, L.Multiply, L.Average, L.Concatenate, L.Dot, L.UnitNormalization, L.RMSNormalization),
    *(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.Activation),
)
AUGMENTATIONS = tuple(
    getattr(L, f"Random{name}")
    for name in (
        *("Brightness", "ColorDegeneration", "ColorJitter", "Contrast", "ElasticTransform", "Erasing", "Flip"),
        *("GaussianBlur", "Grayscale", "Hue", "Invert", "Perspective", "Posterization", "Rotation", "Saturation"),
        *("Sharpness", "Shear", "Translation", "Zoom"),
    )
)
OURS = (
    *(layers_image.Conv2D, layers_image.Conv2DTranspose, layers_image.DepthwiseConv2D, layers_image.SeparableConv2D),
    *(layers_image.MaxPooling2D, layers_image.AveragePooling2D, layers_image.UpSampling2D, layers_image.Cropping2D),
    *(layers_series.Conv1D, layers_series.Conv1DTranspose, layers_series.DepthwiseConv1D),
    *(layers_series.SeparableConv1D, layers_series.MaxPooling1D, layers_series.AveragePooling1D),
    *(layers_series.UpSampling1D, layers_series.RepeatVector, layers_series.Cropping1D, layers_series.TimeDistributed),
    *(layers_recurrent.LSTM, layers_recurrent.GRU, layers_recurrent.SimpleRNN, layers_recurrent.Bidirectional),
    *(layers_vector.Dense, layers_vector.Embedding, layers_vector.BatchNormalization),
    *(layers_vector.LayerNormalization, layers_vector.GroupNormalization, layers_vector.Normalization),
    *(layers_vector.Attention, layers_vector.MultiHeadAttention, layers_vector.Dropout),
    *(layers_vector.SpatialDropout1D, layers_vector.SpatialDropout2D, layers_vector.Maximum, layers_vector.Minimum),
    *(layers_vector.ReLU, layers_vector.LeakyReLU, layers_vector.PReLU, layers_vector.ELU, layers_vector.Softmax),
)
LAYERS: dict[type, Any] = {
    **{kind: kind for kind in AS_THEY_ARE},
    **dict.fromkeys(AUGMENTATIONS, layers_vector.Unchanged),
    **{getattr(L, kind.__name__): kind for kind in OURS},
}


def trainable_layer(layer: Any) -> Any:
    """A layer with the config of `layer` and device gradients.

    Raises:
        ModelError: As `check_layer`.
    """
    check_layer(layer)
    kind = LAYERS[type(layer)]
    twin = kind.of(layer) if hasattr(kind, "of") else kind.from_config(layer.get_config())
    if "activation" in vars(twin):  # a property, of the cell, in recurrent layers: those look it up themselves
        own = getattr(layer, "activation", twin.activation)  # a Softmax of ours has one, Keras's has none
        twin.activation = trainable_layer(own) if isinstance(own, L.Layer) else ACTIVATIONS[own]
    return twin


def check_layer(layer: Any) -> None:
    """
    Raises:
        ModelError: Its kind, activation or an option of it is not supported; names the layer and what is.
    """
    kind = LAYERS.get(type(layer))
    if kind is None:
        raise layer_refusal(
            layer,
            f"is a {type(layer).__name__}, which has no device gradient",
            "docs/trainable.md lists the layers that have one.",
        )
    if layer.dtype_policy.compute_dtype != "float32" and type(layer) is not L.InputLayer:
        raise layer_refusal(layer, f"computes in {layer.dtype_policy.compute_dtype}", "Build the model in float32.")
    for name in ("activation", "recurrent_activation"):
        _check_activation(layer, getattr(layer, name, None))
    if hasattr(kind, "check"):
        kind.check(layer)


def _check_activation(layer: Any, activation: Any) -> None:
    """By identity, not by name: a function of the user's own may be called relu."""
    if isinstance(activation, L.Layer) and type(layer) in LAYERS and not activation.weights:
        try:
            check_layer(activation)
        except ModelError as e:
            raise layer_refusal(layer, f"has as its activation a layer: {e.found}", e.advice) from e
    elif activation is not None and activation not in ACTIVATIONS:
        found = getattr(activation, "__name__", type(activation).__name__)
        known = ", ".join(a.__name__ for a in ACTIVATIONS)
        raise layer_refusal(layer, f"uses the activation {found}, which has no device gradient", f"Supported: {known}.")
