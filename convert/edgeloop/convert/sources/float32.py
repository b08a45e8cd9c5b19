"""A source that computes in float16, bfloat16 or float64 in, the same in float32 out: what devices compute in.

A Keras 3 model is built again with float32 as its dtype policy; any other source has its frozen graph rewritten. How
far the answers then are from the original's is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.convert.calls import first_axes_agree, fixed_batch, in_batches
from edgeloop.convert.samples import synthetic
from edgeloop.convert.sources.rewritten import replace_by_identity, rewritten
from edgeloop.convert.sources.source_value import Source
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.runtime.parity.compare import snr_db

OTHER = ("float16", "bfloat16", "float64")
POLICIES = frozenset({*OTHER, "mixed_float16", "mixed_bfloat16"})
DTYPE_KEYS = frozenset({"dtype", "compute_dtype", "variable_dtype", "_dtype"})
HOLDERS = frozenset({"Const", "Identity", "Placeholder", "Cast", "ReadVariableOp", "VarHandleOp", "NoOp"})
SAMPLES = 4
LEAST_DB = 20.0  # below that, the model needs its own precision


def policies(model: Any) -> list[str]:
    """Which floats other than float32 the layers of a Keras model compute in."""
    found = {layer.compute_dtype for layer in _layers(model) if getattr(layer, "compute_dtype", None) in OTHER}
    return [kind for kind in OTHER if kind in found]


def keras_in_float32(model: Any) -> Any:
    """A Keras 3 model with the same weights under the policy float32."""
    made = type(model).from_config(_config(model.get_config()))
    made.set_weights([np.asarray(weight, np.float32) for weight in model.get_weights()])
    return made


def in_float32(source: Source, original: Source, kinds: list[str]) -> Source:
    """`source`, which computes in float32, with the note of how far it is from `original`; any float left there is
    rewritten in its graph.

    Raises:
        ModelError: float32 is not enough for this model.
    """
    tensors = (*source.inputs, *source.outputs)
    if source.model is None or policies(source.model) or any(spec.dtype in OTHER for spec in tensors):
        source = rewritten(source, _rewrite, OTHER)
    return with_distance(source, original, kinds)


def with_distance(source: Source, original: Source, kinds: list[str]) -> Source:
    """`source`, which computes in float32, with the note of how far it is from `original`, which computes in `kinds`.

    Raises:
        ModelError: float32 is not enough for this model.
    """
    words = " and ".join(kinds)
    note = f"The model computes in {words}, and devices in float32, so it was converted in float32"
    distance = distance_from(source, original)
    if distance is None:
        return replace(source, notes=(*source.notes, f"{note}."))
    snr, largest = distance
    if snr is not None and snr < LEAST_DB:
        raise ModelError(
            f"{source.path} computes in {words}, and in float32 its answers differ (SNR {snr:.1f} dB)",
            advice="Change the model so that float32 is enough, e.g. subtract large offsets first.",
        )
    figure = "are equal" if snr is None else f"differ by at most {largest:.2g} (SNR {snr:.1f} dB)"
    return replace(source, notes=(*source.notes, f"{note}: on generated inputs the answers {figure}."))


def floats_of(nodes: Any) -> list[str]:
    """Which of the other floats nodes of a GraphDef compute in, not only hold or convert."""
    tf = need("tensorflow", extra="convert")
    found = {attr.type for node in nodes if node.op not in HOLDERS for attr in node.attr.values()}
    return [kind for kind in OTHER if tf.as_dtype(kind).as_datatype_enum in found]


def _config(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if value.get("class_name") in ("DTypePolicy", "Policy") and value.get("config", {}).get("name") in POLICIES:
            return {**value, "config": {**value["config"], "name": "float32"}}
        return {name: _config(item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_config(item) for item in value)
    return "float32" if key in DTYPE_KEYS and value in POLICIES else value


def _rewrite(tf: Any, graph_def: Any) -> None:
    """Every other float of a GraphDef becomes float32, in its functions too; casts between floats become nothing."""
    other, float32 = {tf.as_dtype(kind).as_datatype_enum for kind in OTHER}, tf.float32.as_datatype_enum
    functions = graph_def.library.function
    nodes = [*graph_def.node, *(node for function in functions for node in function.node_def)]
    for function in functions:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type in other:
                argument.type = float32
    for attr in (attr for node in nodes for attr in node.attr.values()):
        if attr.type in other:
            attr.type = float32
        for i, kind in enumerate(attr.list.type):
            if kind in other:
                attr.list.type[i] = float32
        if attr.tensor.dtype in other:
            limit = np.finfo(np.float32).max
            values = np.asarray(tf.make_ndarray(attr.tensor), np.float64)
            bounded = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
            attr.tensor.CopyFrom(tf.make_tensor_proto(bounded.astype(np.float32), shape=values.shape))
    replace_by_identity(graph_def, _cast_to_itself)


def _cast_to_itself(node: Any) -> int | None:
    """The type of a Cast that changes none."""
    same = node.op == "Cast" and node.attr["SrcT"].type == node.attr["DstT"].type
    return int(node.attr["DstT"].type) if same else None


def distance_from(source: Source, original: Source) -> tuple[float | None, float] | None:
    """SNR in dB (None: equal) and the largest difference on generated inputs; None where nothing can be compared."""
    whole = not first_axes_agree(source.inputs)
    samples = synthetic(source.inputs, whole=whole, sizes=source.sizes, count=SAMPLES)
    dtypes = {spec.name: "float32" if spec.dtype == "bfloat16" else spec.dtype for spec in original.inputs}
    given = replace(samples, inputs={name: array.astype(dtypes[name]) for name, array in samples.inputs.items()})
    try:
        exact, made = (
            in_batches(one.call, some, fixed_batch(one.inputs)) for one, some in ((original, given), (source, samples))
        )
    except Exception:  # of made-up values; the proof runs the source on those that count
        return None
    power = noise = largest = 0.0
    for a, b in zip(exact.values(), made.values(), strict=True):
        if a.shape != b.shape or not np.isfinite(a.astype(np.float64)).all():
            return None
        error = np.nan_to_num(np.abs(a.astype(np.float64) - b.astype(np.float64)), nan=np.inf, posinf=np.inf)
        power, noise = power + float(np.sum(np.square(a.astype(np.float64)))), noise + float(np.sum(np.square(error)))
        largest = max(largest, float(error.max(initial=0.0)))
    return snr_db(power, noise), largest


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)
