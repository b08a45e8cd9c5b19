"""The layers of a TF.js layers model and its weights in, a source out: as Keras would have loaded them.

Source: https://github.com/tensorflow/tfjs/blob/master/tfjs-converter/python/tensorflowjs/converters/keras_tfjs_loader.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.sources.keras_source import functional, loaded_source
from edgeloop.convert.sources.source_value import Source
from edgeloop.errors import ModelError
from edgeloop.extras import need

CELL = re.compile(r"(lstm|gru|simple_rnn)_cell(_\d+)?")


def layers_model(path: Path, model: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Source:
    """Build the layers of model.json and give them their weights.

    Raises:
        ModelError: Weights are missing, or what `keras_source` refuses.
        Exception: Of either Keras: it cannot build these layers.
    """
    topology = model["modelTopology"]
    config = json.dumps(topology.get("model_config") or topology)
    tf_keras = need("tf_keras", extra="convert")
    try:
        loaded = tf_keras.models.model_from_json(config)
    except Exception as e:  # written from Keras 3, whose configurations tf_keras does not read
        try:
            loaded = functional(need("keras", extra="convert").models.model_from_json(config))
        except Exception:
            raise e from None
    return loaded_source(path, loaded, None, _set_weights(path, loaded, weights))


def _set_weights(path: Path, model: Any, weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Notes: a sentence where only the order and the shapes of the weights tell which is whose."""
    notes: tuple[str, ...] = ()
    variables = [(layer, i, v) for layer in model.layers for i, v in enumerate(layer.weights)]
    for rule in NAMES:
        names = [rule(layer, i, variable) for layer, i, variable in variables]
        if len(set(names)) == len(names) and weights.keys() >= set(names):
            break
    else:
        names = list(weights)  # in the order they were saved in, if shapes say so
        if [tuple(v.shape) for _, _, v in variables] != [weights[n].shape for n in names]:
            missing = sorted({_own(*v) for v in variables} - weights.keys())
            raise ModelError(
                f"{path} has no weights for {', '.join(missing[:3])}", advice="Save the model with its weights again."
            )
        notes = (
            f"The names of the weights in {path.name} are not those of its layers, so they were taken in their order. "
            "Compare with the model it was made from: edgeloop same A B.",
        )
    for (_, _, variable), name in zip(variables, names, strict=True):
        variable.assign(weights[name])
    return notes


def _own(layer: Any, index: int, variable: Any) -> str:
    return str(variable.name).split(":")[0]


def _without_cell(layer: Any, index: int, variable: Any) -> str:
    """TensorFlow 2.2 brought the name of a recurrent layer's cell into that of its weights."""
    return "/".join(part for part in _own(layer, index, variable).split("/") if not CELL.fullmatch(part))


def _by_path(layer: Any, index: int, variable: Any) -> str:
    return str(getattr(variable, "path", ""))


def _by_layer(layer: Any, index: int, variable: Any) -> str:
    return f"{layer.name}/{_own(layer, index, variable)}"


def _by_number(layer: Any, index: int, variable: Any) -> str:
    return f"{layer.name}/{index}"


NAMES: tuple[Callable[[Any, int, Any], str], ...] = (_own, _without_cell, _by_path, _by_layer, _by_number)
