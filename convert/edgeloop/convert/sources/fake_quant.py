"""A model trained by TF-MOT in, one without its wrappers out: pruning and clustering exist for training only; fake
quantization tells the ranges that int8 is made with.

Source: TensorFlow's fake_quant_ops_functor.h, Nudge.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.sources.float32 import distance_from
from edgeloop.convert.sources.rewritten import replace_by_identity, rewritten
from edgeloop.convert.sources.source_value import Source
from edgeloop.convert.sources.unstated_ranges import unstated_inputs
from edgeloop.extras import need
from edgeloop.files.stored_zip import bounded_zip

FAKE = "FakeQuantWithMinMax"
OPS = {
    FAKE + "Args": "fake_quant_with_min_max_args",
    FAKE + "Vars": "fake_quant_with_min_max_vars",
    FAKE + "VarsPerChannel": "fake_quant_with_min_max_vars_per_channel",
}
BITS = 8
STEPS = (1 << BITS) - 1
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


def with_learned_ranges(source: Source) -> Source:
    """The source with its fake quantization written as arithmetic, of which int8 takes the ranges: 8 bits for a whole
    tensor. Weights are rounded here. Any other is left out, and a note says how far that is from the original."""
    kept: list[str] = []
    left: list[str] = []
    unstated = total = 0

    def write(tf: Any, graph_def: Any) -> None:
        nonlocal unstated, total
        _write_rounding(kept, left, tf, graph_def)
        unstated, total = unstated_inputs(graph_def, kept)

    made = rewritten(source, write)
    notes = list(source.notes)
    if kept:
        notes.append("int8 is made with the ranges that the model learned in its training; other forms round in them.")
    if kept and unstated:
        which = f"{unstated} of {total} inputs of layers with weights"
        notes.append(f"The model learned no range for {which}, so int8 needs --calibration to measure them.")
    if left:
        distance = distance_from(made, source)
        figure = "" if distance is None or distance[0] is None else f" (SNR {distance[0]:.1f} dB on generated inputs)"
        which = f"Of its fake quantization, {len(left)} of {len(kept) + len(left)} ranges cannot be int8's, and"
        notes.append(f"{which} were left out of the model{figure}. Pass --calibration, so that int8 measures them.")
    if not kept:
        return replace(made, notes=tuple(notes))
    return replace(made, rounds=Scheme.INT8, unstated=unstated, notes=tuple(notes))


def _write_rounding(kept: list[str], left: list[str], tf: Any, graph_def: Any) -> None:
    """`kept` receives the names of the activations that are rounded, `left` those of the others."""
    by_name = {node.name: node for node in graph_def.node}
    for node in [node for node in graph_def.node if node.op in OPS]:
        named = node.op == FAKE + "Args"  # the limits are attributes
        values = [_constant(tf, by_name, name) for name in node.input[: 1 if named else 3]]
        values += [np.float32(node.attr[name].f) for name in ("min", "max") if named]
        if all(value is not None for value in values):
            rounded = getattr(tf.quantization, OPS[node.op])(
                *values, num_bits=node.attr["num_bits"].i, narrow_range=node.attr["narrow_range"].b
            )
            _become_constant(tf, node, rounded.numpy())
            continue
        of_8_bits = node.attr["num_bits"].i == BITS and not node.attr["narrow_range"].b
        whole = of_8_bits and node.op != FAKE + "VarsPerChannel"
        limits = _nudged(*values[1:]) if whole and all(value is not None for value in values[1:]) else None
        if limits is not None:
            _become_rounding(tf, graph_def, node, *limits)
            kept.append(node.name)
    inner = [node for function in graph_def.library.function for node in function.node_def]
    left += [node.name for node in (*graph_def.node, *inner) if node.op.startswith(FAKE)]
    float32 = tf.float32.as_datatype_enum
    replace_by_identity(graph_def, lambda node: float32 if node.op.startswith(FAKE) else None)


def _constant(tf: Any, by_name: Mapping[str, Any], name: str) -> Any:
    """What a tensor of a frozen graph always is; None where it is computed."""
    node = by_name.get(name.split(":")[0])
    while node is not None and node.op == "Identity":
        node = by_name.get(node.input[0].split(":")[0])
    return tf.make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def _nudged(low: np.ndarray, high: np.ndarray) -> tuple[float, float, float] | None:
    """The limits moved so that 0 is one of the steps between them, as TensorFlow moves them; and the step."""
    step = (np.float32(high) - np.float32(low)) / np.float32(STEPS)  # in float32, which decides ties
    if not 0 < step < np.inf or low > 0 or high < 0:
        return None
    zero = float(np.clip(np.floor(-np.float32(low) / step + np.float32(0.5)), 0, STEPS))
    return -zero * float(step), (STEPS - zero) * float(step), float(step)


def _become_constant(tf: Any, node: Any, value: np.ndarray) -> None:
    node.op, node.input[:] = "Const", []
    node.attr.clear()
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))


def _become_rounding(tf: Any, graph_def: Any, node: Any, low: float, high: float, step: float) -> None:
    """The form in which `forms/stated_ranges.py` finds a rounding."""
    float32, last, place = tf.float32.as_datatype_enum, node.input[0], node.name
    steps = (
        ("Maximum", "low", low), ("Minimum", "high", high), ("Mul", "steps", 1 / step), ("Round", "round", None),
        ("Mul", "", step),
    )  # fmt: skip
    for op, name, value in steps:
        made = graph_def.node.add(name=f"{place}/{name}") if name else node
        made.op, made.input[:] = op, [last]
        made.attr.clear()
        made.attr["T"].type = float32
        if value is not None:
            constant = graph_def.node.add(name=f"{place}/{name or 'step'}/value")
            _become_constant(tf, constant, np.array(value, np.float32))
            made.input.append(constant.name)
        last = made.name
