"""How a layer that cannot train on a device is refused: by its path, with what it is and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.errors import ModelError


def layer_refusal(layer: Any, found: str, advice: str) -> ModelError:
    """`found` continues the sentence "layer PATH ..." or "operation NAME ..."; `advice` is one of its own."""
    what = "layer" if hasattr(layer, "path") else "operation"
    return ModelError(f"{what} {(getattr(layer, 'path', None) or layer.name)!r} {found}", advice=advice)


def joined_refusal(refusals: Sequence[ModelError], fit: int | None) -> ModelError:
    """One error of all of them.

    Args:
        fit: The most layers that --train-last could train; None where there is none.
    """
    advice = list(dict.fromkeys(e.advice for e in refusals))  # each once, in order
    last = "" if fit is None else f"pass --train-last {fit}, which trains no such layer, or "
    found = "; ".join(dict.fromkeys(e.found for e in refusals))
    return ModelError(found, advice=" ".join([*advice, f"Or {last}convert without --trainable."]))


def only_last_channels(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise layer_refusal(layer, "is channels_first", "Build the model with channels_last.")
