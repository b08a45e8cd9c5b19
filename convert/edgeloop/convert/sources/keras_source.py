"""A .keras or .h5 file as a source. An .h5 that Keras 3 does not load is loaded by tf_keras, which wrote it.

Both live in one process: `tf_keras` is imported by its own name, and `tf.keras` is touched by neither.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.sources.fake_quant import is_wrapped, layers_of, load_wrapped, with_learned_ranges
from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.float32 import in_float32, keras_in_float32, policies
from edgeloop.convert.sources.identify import SourceKind, source_digest
from edgeloop.convert.sources.names import arguments, identifiers, scope
from edgeloop.convert.sources.source_value import INFER, Arrays, Source, tensor_specs
from edgeloop.convert.sources.words import without_words
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

UNKNOWN = ("Could not locate class", "Could not locate function", "Unknown layer", "Unknown object")
TFMOT = "Save the model as .h5 or as a SavedModel: TF-MOT cannot load its layers from every .keras file."
CUSTOM = (
    "Pass --import F.py with the file that defines it, or call model.export() where the model was trained and convert "
    "the SavedModel."
)


def open_keras(path: Path, signature: str | None, allow_unsafe: bool) -> Source:
    """Load a file that `safety.check` has looked at: tf_keras runs a Lambda while it loads.

    Raises:
        ModelError: Neither Keras can load it, it has no declared inputs, keeps state, or holds NaN weights.
    """
    if signature not in (None, INFER):
        raise ModelError(
            f"{path} is a Keras model, whose only signature is {INFER!r}; --signature is {signature!r}",
            advice="Leave --signature out.",
        )
    keras = need("keras", extra="convert")
    try:
        loaded = functional(keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe))
        model, words = without_words(loaded)
        source = replace(keras_source(path, model), **words)
    except ModelError:
        raise
    except Exception as e:  # Keras raises many types here; each means the file cannot be loaded
        reason = f"Keras {keras.__version__}: {_line(e)}"
    else:
        return _in_float32(source, model)
    tf_keras = need("tf_keras", extra="convert")
    notes = [f"{path.name} was read by tf_keras, because Keras 3 cannot load it."]
    wrapped = is_wrapped(path)
    try:
        if wrapped:
            model, note = load_wrapped(tf_keras, path)
            notes += [note] if note else []
        else:
            model = tf_keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe)
    except Exception as e:
        unknown = any(words in f"{reason} {e}" for words in UNKNOWN)
        raise ModelError(
            f"{path} cannot be loaded by {reason} tf_keras cannot load it either: {_line(e)}",
            advice=TFMOT if wrapped else CUSTOM if unknown else "Save the model again with Keras 3.",
        ) from e
    source = loaded_source(path, model, None, tuple(notes))
    quantized = any(type(layer).__name__.startswith("Quantize") for layer in layers_of(model))
    return _in_float32(with_learned_ranges(source) if quantized else source, model)


def _in_float32(source: Source, model: Any) -> Source:
    """The source as it is, or one that computes in float32 where the policy of its layers is another."""
    kinds = policies(model)
    if not kinds:
        return source
    try:
        made = source
        if source.model is not None:
            made = keras_source(source.path, functional(keras_in_float32(model)))
            made = replace(made, files=source.files, notes=source.notes, lookups=source.lookups)
    except ModelError:
        raise
    except Exception:  # a layer that cannot be made again from its own config; its graph can be rewritten
        made = replace(source, model=None)
    return in_float32(made, source, kinds)


def keras_source(path: Path, model: Any) -> Source:
    """A loaded functional Keras 3 model as a `Source`. One output keeps its layer's name, as several do.

    Raises:
        ModelError: It has no declared inputs, keeps state, or holds NaN weights.
    """
    return loaded_source(path, model, model, ())


def functional(model: Any) -> Any:
    """A Keras model as one with named ends: a Sequential becomes the functional model of its layers and weights."""
    keras = need("keras", extra="convert")
    if isinstance(model, keras.Sequential) and model.inputs:
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return model


def loaded_source(path: Path, loaded: Any, model: Any, notes: tuple[str, ...]) -> Source:
    """As `keras_source`, of a model of either Keras; `model` is the Keras 3 one, if it is."""
    tf = need("tensorflow", extra="convert")
    _check(path, loaded)
    in_names, out_names = arguments([t.name for t in loaded.inputs]), identifiers(loaded.output_names)
    for layer in (loaded, *layers_of(loaded)):  # every call opens a scope of the layer's name
        if isinstance(layer.name, str) and scope(layer.name) != layer.name:
            setattr(layer, "_name" if hasattr(layer, "_name") else "name", scope(layer.name))
        if type(layer).__name__ == "UpSampling2D" and hasattr(layer, "_resize_images"):
            layer._resize_images = _of_any_size(layer._resize_images)

    def graph(**tensors: Any) -> list[Any]:
        packed = tf.nest.pack_sequence_as(loaded.input, [tensors[name] for name in in_names])
        return tf.nest.flatten(loaded(packed, training=False))

    @cache
    def traced() -> Any:
        """Once, when it is first called: layer by layer 100 samples of MobileNetV2-224 took 11 CPU seconds, so 3."""
        specs = {n: tf.TensorSpec(t.shape, t.dtype) for n, t in zip(in_names, loaded.inputs, strict=True)}
        return tf.function(graph, autograph=False).get_concrete_function(**specs)

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        values = traced()(**{name: tf.convert_to_tensor(arrays[name]) for name in in_names})
        return dict(zip(out_names, (np.asarray(v) for v in values), strict=True))

    sides = [[(tuple(t.shape), tf.as_dtype(t.dtype).name) for t in side] for side in (loaded.inputs, loaded.outputs)]
    return Source(
        path=path,
        kind=SourceKind.KERAS,
        sha256=source_digest(path),
        signature=INFER,
        inputs=tensor_specs(in_names, sides[0]),
        outputs=tensor_specs(out_names, sides[1]),
        call=call,
        graph=graph,
        model=model,
        notes=notes,
    )


def _of_any_size(resize: Any) -> Any:
    """Keras's resizing of UpSampling2D also where height or width is free: it compares the new size with 0 (3.15),
    which no graph can, unless it repeats pixels."""
    tf = need("tensorflow", extra="convert")

    def resize_any(x: Any, height: int, width: int, data_format: str, interpolation: str = "nearest") -> Any:
        free = isinstance(x, tf.Tensor) and None in x.shape[1:3] and data_format == "channels_last"
        if not free or interpolation == "nearest":
            return resize(x, height, width, data_format, interpolation=interpolation)
        return tf.cast(tf.image.resize(x, tf.shape(x)[1:3] * [height, width], interpolation), x.dtype)

    return resize_any


def _check(path: Path, model: Any) -> None:
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{path} is a subclassed model without declared inputs",
            advice="Export it with model.export() and convert the SavedModel.",
        )
    for layer in layers_of(model):
        if getattr(layer, "stateful", False) is True:
            raise ModelError(
                f"{path} keeps state between calls in the layer {layer.name!r}",
                advice="Build the layer with stateful=False.",
            )
    for variable in model.variables:
        values = np.asarray(variable)
        if values.dtype.kind == "f":
            refuse_not_finite(path, getattr(variable, "path", variable.name), values)


def _line(e: Exception) -> str:
    reason = str(e).rpartition("Exception encountered: ")[2]  # Keras prints whole configs before it
    return one_line(reason).rstrip(".") + "."
