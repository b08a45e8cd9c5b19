"""How a layer that cannot train on a device is refused: by its path, with what it is and what to do."""

from __future__ import annotations

from typing import Any

from edgeloop.errors import ModelError


def layer_refusal(layer: Any, found: str, advice: str) -> ModelError:
    """`found` continues the sentence "layer PATH ..."; `advice` is one of its own."""
    path = getattr(layer, "path", None) or layer.name
    return ModelError(f"layer {path!r} {found}", advice=f"{advice} Or convert without --trainable.")


def only_last_channels(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise layer_refusal(layer, "is channels_first", "Build the model with channels_last.")
