"""A model trained by TF-MOT in, the plain model out: fake quantization and pruning exist for training only.

int8 files are made from real inputs like those of any other model; the ranges that the training learned are not read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.convert.sources.float32 import distance_from
from edgeloop.convert.sources.rewritten import replace_by_identity, rewritten
from edgeloop.convert.sources.source_value import Source
from edgeloop.extras import need
from edgeloop.files.stored_zip import bounded_zip

FAKE = "FakeQuantWithMinMax"
WRAPPERS = (b"QuantizeLayer", b"QuantizeWrapper", b"PruneLowMagnitude", b"ClusterWeights")


def is_wrapped(path: Path) -> bool:
    """Whether a .keras or .h5 file names a class of TF-MOT in its configuration."""
    if zipfile.is_zipfile(path):
        with bounded_zip(path) as archive:
            config = archive.read("config.json")
    else:
        with need("h5py", extra="convert").File(path, "r") as file:
            config = file.attrs.get("model_config", b"")
    text = config.encode() if isinstance(config, str) else bytes(config)
    return any(wrapper in text for wrapper in WRAPPERS)


def load_wrapped(tf_keras: Any, path: Path) -> tuple[Any, str]:
    """A model with TF-MOT's wrappers, those for pruning and clustering taken off, and a sentence that says so."""
    tfmot = need("tensorflow_model_optimization", extra="convert")
    scopes = tfmot.quantization.keras.quantize_scope(), tfmot.sparsity.keras.prune_scope()
    own = tf_keras.utils.custom_object_scope(_loadable())  # innermost, so that it is asked first
    with scopes[0], scopes[1], tfmot.clustering.keras.cluster_scope(), own:
        model = tf_keras.models.load_model(path, compile=False)
    taken = []
    for wrapper, strip, what in (
        ("PruneLowMagnitude", tfmot.sparsity.keras.strip_pruning, "pruning"),
        ("ClusterWeights", tfmot.clustering.keras.strip_clustering, "clustering"),
    ):
        if any(type(layer).__name__.startswith(wrapper) for layer in layers_of(model)):
            model = strip(model)
            taken.append(what)
    return model, f"The wrappers of {' and '.join(taken)} were taken off the model." if taken else ""


def layers_of(model: Any) -> Iterator[Any]:
    """Every layer, those of models inside the model too."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from layers_of(layer)


def _loadable() -> dict[str, type]:
    """TF-MOT's wrappers of quantization as a .keras file can be loaded with them.

    Loaded from one they are built twice, by the file and by their first call. And where a layer was trained, the file
    has what the wrapper took over from it (kernel, bias) before the wrapper's own variables.
    """
    package = "tensorflow_model_optimization.python.core.quantization.keras"
    layer, wrapper = (need(f"{package}.{name}", extra="convert") for name in ("quantize_layer", "quantize_wrapper"))

    def build_from_config(self: Any, config: Any) -> None:
        pass

    def load_own_variables(self: Any, store: Any) -> None:
        variables = self._trainable_weights + self._non_trainable_weights
        values = [store[str(i)] for i in range(len(store.keys()))]
        for variable, value in zip(variables, values[len(values) - len(variables) :], strict=True):
            variable.assign(value)

    changed = {"build_from_config": build_from_config, "load_own_variables": load_own_variables}
    classes = layer.QuantizeLayer, wrapper.QuantizeWrapper, wrapper.QuantizeWrapperV2
    return {one.__name__: type(one.__name__, (one,), changed) for one in classes}


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
