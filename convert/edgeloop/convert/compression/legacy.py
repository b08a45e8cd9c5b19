"""A functional Keras 3 model in, the same one in tf_keras out, and weights back: TF-MOT knows tf_keras alone.

Nested models are laid flat (TF-MOT's quantization refuses a model inside a model), and a SeparableConv2D becomes the
depthwise and the pointwise convolution that it is, because TF-MOT splits it too and then loses its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

# what Keras 3 writes and tf_keras has no word for; a difference that matters shows when the outputs are compared
DROPPED = frozenset({"dtype", "build_config", "batch_shape", "batch_input_shape", "input_axes", "output_axes"})

RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
# from_config of tf_keras wants these, and None lets the first call build the layer
ADDED = {"MultiHeadAttention": {"query_shape": None, "key_shape": None, "value_shape": None}}


@dataclass(frozen=True, slots=True)
class LegacyModel:
    """A tf_keras model that computes what a Keras 3 model computes.

    Attributes:
        model: Flat and functional, float32, with a free batch; every layer's name is its own.
        parts: For each layer of the original that has weights: the layer, and its counterparts in `model` by name,
            whose weights in a row are the layer's.
    """

    model: Any
    parts: tuple[tuple[Any, tuple[str, ...]], ...]

    def hand_back(self, weights: dict[str, list[np.ndarray]]) -> None:
        """Set the original's weights from {layer name in `model`: arrays in get_weights order}."""
        for original, names in self.parts:
            original.set_weights([array for name in names for array in weights[name]])


def rebuild(model: Any) -> LegacyModel:
    """Rebuild a functional or Sequential Keras 3 model in tf_keras, weights included.

    Raises:
        ModelError: A layer or operation that tf_keras does not have, by name.
    """
    tf_keras = need("tf_keras", extra="convert")
    builder = _Builder(tf_keras)
    inputs = [tf_keras.Input(t.shape[1:], name=builder.unique(t.name), dtype=str(t.dtype)) for t in model.inputs]
    outputs = builder.call(model, inputs)
    twin = tf_keras.Model(inputs, outputs, name=model.name)
    for original, names in builder.parts:
        arrays = original.get_weights()
        for name in names:
            layer = twin.get_layer(name)
            count = len(layer.get_weights())
            try:
                layer.set_weights(arrays[:count])
            except ValueError as e:
                raise ModelError(
                    f"the layer {name!r} has other weights in tf_keras, which TF-MOT needs",
                    advice="Convert without --prune, --cluster and --qat.",
                ) from e
            arrays = arrays[count:]
    return LegacyModel(twin, tuple(builder.parts))


class _Builder:
    """Walks the nodes of a Keras 3 graph and calls the tf_keras counterpart of each."""

    def __init__(self, tf_keras: Any) -> None:
        self.tf_keras = tf_keras
        self.keras = need("keras", extra="convert")
        self.made: dict[int, list[Any]] = {}  # by the id of the Keras 3 layer: a layer called twice is one layer
        self.parts: list[tuple[Any, tuple[str, ...]]] = []
        self.names: set[str] = set()

    def unique(self, name: str) -> str:
        """Two nested models may each have a layer of that name; in a flat one both need their own."""
        count, chosen = 1, name
        while chosen in self.names:
            count, chosen = count + 1, f"{name}_{count}"
        self.names.add(chosen)
        return chosen

    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of `model`, computed by counterparts from `inputs`."""
        keras = self.keras
        functional = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
        tensors = {id(t): value for t, value in zip(functional.inputs, inputs, strict=True)}
        nest = need("tensorflow", extra="convert").nest

        def swap(value: Any) -> Any:
            return tensors.get(id(value), value)

        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                args = nest.map_structure(swap, tuple(node.arguments.args))
                kwargs = {key: nest.map_structure(swap, v) for key, v in node.arguments.kwargs.items() if v is not None}
                if isinstance(node.operation, keras.Model):
                    results = self.call(node.operation, nest.flatten(args))
                else:
                    for layer in self.counterparts(node.operation):
                        args = (layer(*args, **kwargs),)
                        kwargs = {}
                    results = nest.flatten(args[0])
                tensors.update((id(t), value) for t, value in zip(node.outputs, results, strict=True))
        return [tensors[id(t)] for t in functional.outputs]

    def counterparts(self, layer: Any) -> list[Any]:
        """The tf_keras layers, one after another, that do what `layer` does."""
        if id(layer) not in self.made:
            kind = type(layer).__name__
            known = getattr(self.tf_keras.layers, kind, None)
            builtin = type(layer).__module__.startswith("keras.") and isinstance(layer, self.keras.Layer)
            if known is None or not builtin:  # keras.ops.Multiply and keras.layers.Multiply share a name
                raise ModelError(
                    f"the layer {layer.name!r} ({kind}) does not exist in tf_keras, which TF-MOT needs",
                    advice="Replace it, or convert without --prune, --cluster and --qat.",
                )
            made = self._separable(layer) if kind == "SeparableConv2D" else [self._layer(known, layer.get_config())]
            self.made[id(layer)] = made
            if layer.weights:
                self.parts.append((layer, tuple(part.name for part in made)))
        return self.made[id(layer)]

    def _layer(self, known: Any, config: dict[str, Any]) -> Any:
        clean = _clean(self.tf_keras, known, config)
        try:
            return known.from_config({**clean, "name": self.unique(config["name"])})
        except Exception as e:  # tf_keras raises ValueError, TypeError and KeyError for a setting it does not know
            reason = one_line(e, 200)
            raise ModelError(
                f"the layer {config['name']!r} cannot be made in tf_keras: {reason}",
                advice="Leave --prune, --cluster and --qat out, or change this layer.",
            ) from e

    def _separable(self, layer: Any) -> list[Any]:
        config, layers = layer.get_config(), self.tf_keras.layers
        name, shared = config["name"], {"trainable": config["trainable"], "data_format": config["data_format"]}
        depthwise = shared | {
            key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")
        }
        pointwise = shared | {key: config[key] for key in ("filters", "activation", "use_bias")}
        return [
            self._layer(layers.DepthwiseConv2D, {**depthwise, "use_bias": False, "name": f"{name}_depthwise"}),
            self._layer(layers.Conv2D, {**pointwise, "kernel_size": 1, "name": f"{name}_pointwise"}),
        ]


def _clean(tf_keras: Any, known: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A Keras 3 configuration with what the tf_keras class takes; initializers go, for weights are set anyway."""
    taken = {p for base in known.__mro__ if base is not tf_keras.layers.Layer for p in _parameters(base)} | {
        "trainable"
    }
    renamed = {RENAMED.get((known.__name__, key), key): value for key, value in config.items()}
    kept = {key: v for key, v in renamed.items() if key in taken - DROPPED and not key.endswith("_initializer")}
    return ADDED.get(known.__name__, {}) | {key: _value(tf_keras, value) for key, value in kept.items()}


def _parameters(known: Any) -> set[str]:
    return set(inspect.signature(known.__init__).parameters) if "__init__" in vars(known) else set()


def _value(tf_keras: Any, value: Any) -> Any:
    """An argument that is itself an object (a wrapped layer, a cell, a regularizer) loses what Keras 3 adds to it."""
    if not (isinstance(value, dict) and "class_name" in value):
        return value
    known = getattr(tf_keras.layers, value["class_name"], None)
    config = value["config"]
    if known is not None and isinstance(config, dict):
        config = {**_clean(tf_keras, known, config), "name": config["name"]}
    return {"class_name": value["class_name"], "config": config}
