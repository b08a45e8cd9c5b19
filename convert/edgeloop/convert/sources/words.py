"""A Keras model that takes words in, the same model behind its lookup layers out, and their words as files beside it.

No runtime on a device takes text. What looks words up there needs the words and the layer's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.bundle import VOCABULARY, TensorSpec
from edgeloop.canonical import canonical_json
from edgeloop.convert.sources.names import arguments
from edgeloop.convert.sources.source_value import Lookup
from edgeloop.extras import need

LAYERS = ("StringLookup", "TextVectorization")
SETTINGS = (
    *("standardize", "split", "ngrams", "output_mode", "output_sequence_length", "pad_to_max_tokens", "encoding"),
    *("num_oov_indices", "mask_token", "oov_token"),
)


def without_words(model: Any) -> tuple[Any, dict[str, Any]]:
    """The model with what its lookup layers answer as its inputs, and the `files`, `notes` and `lookups` of its source.

    Unchanged where an input of text goes anywhere else than into one lookup layer.
    """
    if not any(tensor.dtype == "string" for tensor in model.inputs):
        return model, {}
    keras = need("keras", extra="convert")
    cut: dict[str, tuple[Any, Any]] = {}
    for tensor in (tensor for tensor in model.inputs if tensor.dtype == "string"):
        found = _lookup(model, tensor)
        if found is None or any(layer is found[0] for layer, _ in cut.values()):
            return model, {}
        cut[tensor.name] = found
    inputs: list[Any] = [
        keras.Input(batch_shape=cut[t.name][1].shape, dtype=cut[t.name][1].dtype, name=t.name)
        if t.name in cut
        else keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
        for t in model.inputs
    ]
    gone = {id(layer) for layer, _ in cut.values()}

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        return arguments[0] if id(layer) in gone else layer(*arguments, **options)

    made = keras.models.clone_model(
        model,
        input_tensors=keras.tree.pack_sequence_as(model.input, inputs),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    names = dict(zip((t.name for t in model.inputs), arguments([t.name for t in model.inputs]), strict=True))
    files = {f"{VOCABULARY}{names[name]}.json": _words(layer) for name, (layer, _) in cut.items()}
    notes = tuple(
        f"The input {names[name]!r} takes words, which no runtime on a device does, so the model begins behind its "
        f"layer {layer.name!r}: {names[name]} takes what that layer answers. Look words up before the model; "
        f"{VOCABULARY}{names[name]}.json in the bundle holds them and the layer's settings."
        for name, (layer, _) in cut.items()
    )
    lookups = {
        names[t.name]: Lookup(TensorSpec(names[t.name], tuple(t.shape), "string"), _looked_up(cut[t.name][0]))
        for t in model.inputs
        if t.name in cut
    }
    return made, {"files": files, "notes": notes, "lookups": lookups}


def _looked_up(layer: Any) -> Callable[[np.ndarray], np.ndarray]:
    tf = need("tensorflow", extra="convert")
    return lambda text: np.asarray(layer(tf.constant(text)))


def _lookup(model: Any, tensor: Any) -> tuple[Any, Any] | None:
    """The only layer that reads an input, and what it answers; None where that is no lookup of words."""
    # of this model alone: a layer has the nodes of every model that it is in
    used = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    readers = [
        (operation, node)
        for operation in model.operations
        for node in operation._inbound_nodes
        if id(node) in used and any(given is tensor for given in node.input_tensors)
    ]
    if len(readers) != 1:
        return None
    ((layer, node),) = readers
    (answer, *more) = node.outputs
    known = type(layer).__name__ in LAYERS and not getattr(layer, "invert", False)
    return (layer, answer) if known and not more and answer.dtype != "string" else None


def _words(layer: Any) -> bytes:
    config = layer.get_config()
    settings = {key: config[key] for key in SETTINGS if config.get(key) is not None}
    # a word's place is its index: the words of a mask and of unknown words come first
    words = layer.get_vocabulary()
    # of words that the layer learned, the configuration has no weights
    weights = getattr(getattr(layer, "_lookup_layer", layer), "idf_weights_const", None)
    if weights is not None:
        settings["idf_weights"] = np.asarray(weights).tolist()
    return canonical_json({"layer": type(layer).__name__, "words": words, **settings})
