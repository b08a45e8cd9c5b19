"""A model trained by TF-MOT in, the plain model out: fake quantization and pruning exist for training only.

int8 files are made from real inputs like those of any other model; the ranges that the training learned are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgeloop.convert.sources.float32 import distance_from
from edgeloop.convert.sources.rewritten import replace_by_identity, rewritten
from edgeloop.convert.sources.source_value import Source
from edgeloop.extras import need

FAKE = "FakeQuantWithMinMax"
WRAPPERS = ("QuantizeLayer", "QuantizeWrapper", "PruneLowMagnitude")


def load_wrapped(tf_keras: Any, path: Any) -> tuple[Any, str]:
    """A model with TF-MOT's wrappers, those for pruning taken off, and a sentence that says so."""
    tfmot = need("tensorflow_model_optimization", extra="convert")
    with tfmot.quantization.keras.quantize_scope(), tfmot.sparsity.keras.prune_scope():
        model = tf_keras.models.load_model(path, compile=False)
    if not any(type(layer).__name__.startswith("PruneLowMagnitude") for layer in model.layers):
        return model, ""
    return tfmot.sparsity.keras.strip_pruning(model), "The wrappers of pruning were taken off the model."


def has_fake_quant(nodes: Iterable[Any]) -> bool:
    return any(node.op.startswith(FAKE) for node in nodes)


def without_fake_quant(source: Source) -> Source:
    """The source without its fake quantization, and a note of how far its answers then are from the original's."""
    made = rewritten(source, _strip)
    distance = distance_from(made, source)
    figure = "" if distance is None or distance[0] is None else f" (SNR {distance[0]:.1f} dB on generated inputs)"
    note = (
        f"The fake quantization of its training was left out of the model{figure}. Pass --calibration for int8: its "
        "ranges are measured on real inputs."
    )
    return replace(made, notes=(*source.notes, note))


def _strip(tf: Any, graph_def: Any) -> None:
    float32 = tf.float32.as_datatype_enum
    replace_by_identity(graph_def, lambda node: float32 if node.op.startswith(FAKE) else None)
