"""Which layers of a Keras model are frozen by --train-last, and which variables train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeloop.errors import OptionsError
from edgeloop.extras import need


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


def trained_ids(model: Any, train_last: int | None) -> set[int]:
    """The ids of the source's variables that train."""
    frozen = {id(v) for layer in frozen_layers(model, train_last) for v in layer.weights}
    return {id(v) for v in model.trainable_variables} - frozen


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models within it, in the order of `model.layers`."""
    keras = need("keras", extra="convert")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer
