"""What keeps a model from training on a device: every layer and operation that a gradient would have to pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from edgeloop.convert.training.device_graph import nodes_with_gradients
from edgeloop.convert.training.frozen import leaves, trained_ids
from edgeloop.convert.training.layer_refusal import joined_refusal, layer_refusal
from edgeloop.convert.training.layers import check_layer
from edgeloop.convert.training.operations import check_operation
from edgeloop.errors import ModelError
from edgeloop.extras import need

keras: Any = need("keras", extra="convert")


def check_gradients(model: Any, train_last: int | None) -> None:
    """
    Raises:
        ModelError: Some layers or operations have no device gradient; one error names them all.
    """
    found = list(_refusals(model, trained_ids(model, train_last)))
    if not found:
        return
    weighted = sum(bool(layer.weights) for layer in leaves(model))
    fits, above = 0, train_last or weighted  # fewer trained layers never add a refusal: bisect
    while above - fits > 1:
        middle = (fits + above) // 2
        if next(_refusals(model, trained_ids(model, middle)), None) is None:
            fits = middle
        else:
            above = middle
    raise joined_refusal(found, fits if fits and trained_ids(model, fits) else None)


def _refusals(model: Any, trained: set[int]) -> Iterator[ModelError]:
    for node in nodes_with_gradients(model, trained):
        try:
            _check(node)
        except ModelError as e:
            yield e


def _check(node: Any) -> None:
    if not isinstance(node.operation, keras.Layer):
        check_operation(node)
        return
    check_layer(node.operation)
    masked = any(getattr(t, "_keras_mask", None) is not None for t in node.input_tensors)
    if masked and "mask" in inspect.signature(node.operation.call).parameters:
        raise layer_refusal(node.operation, "gets a mask", "Leave Masking and mask_zero out.")
