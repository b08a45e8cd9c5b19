"""One signature of a SavedModel folder as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.sources.fake_quant import has_fake_quant, with_learned_ranges
from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.float32 import floats_of, in_float32
from edgeloop.convert.sources.identify import SourceKind, source_digest
from edgeloop.convert.sources.saved_words import without_tables
from edgeloop.convert.sources.settled_writes import NOTE, WRITE, settle, writes_from_variables_alone
from edgeloop.convert.sources.source_value import Arrays, Shape, Source, tensor_specs
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

DEFAULT = "serving_default"
# operations that change what the next call sees, by how their names begin
STATE = (
    *("Assign", "Scatter", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "LookupTableInsert"),
    *("LookupTableImport", "MutableHashTable", "QueueEnqueue", "QueueDequeue", "IteratorGetNext", "Stage", "Unstage"),
)
NO_STATE = ("ScatterNd",)  # makes a new tensor


def open_saved_model(path: Path, signature: str | None, allow_unsafe: bool = False) -> Source:
    """Load a folder that `safety.check` has looked at.

    Args:
        signature: None: serving_default, or the only one.
        allow_unsafe: Changes nothing here; every opener takes it.

    Raises:
        ModelError: TensorFlow cannot load it, there is no such signature, it keeps state, holds NaN weights, or a
            tensor has no rank.
    """
    tf = need("tensorflow", extra="convert")
    try:
        loaded = tf.saved_model.load(str(path))
        signatures = dict(loaded.signatures)
    except Exception as e:  # TensorFlow raises many types here; each means the folder cannot be loaded
        raise ModelError(f"{path} cannot be loaded as a SavedModel: {one_line(e)}", advice="Export it again.") from e
    name = _choose(path, sorted(n for n in signatures if not n.startswith("__")), signature)
    function = signatures[name]
    written = _written(path, name, function)
    for variable in getattr(loaded, "variables", ()):
        if variable.dtype.is_floating and variable.dtype != tf.bfloat16:
            refuse_not_finite(path, variable.name, variable.numpy())
    specs_in, specs_out = function.structured_input_signature[1], function.structured_outputs
    # sorted: TensorFlow keeps the inputs in a set, so their order is another in every process
    in_names, out_names = sorted(specs_in), sorted(specs_out)

    def graph(**tensors: Any) -> list[Any]:
        out = function(**tensors)
        return [out[n] for n in out_names]

    def call(arrays: Arrays, keep: Any = loaded) -> dict[str, np.ndarray]:  # or its variables would be freed
        out = graph(**{n: tf.constant(arrays[n], specs_in[n].dtype) for n in in_names})
        return {n: np.asarray(v) for n, v in zip(out_names, out, strict=True)}

    source = Source(
        path=path,
        kind=SourceKind.SAVEDMODEL,
        sha256=source_digest(path),
        signature=name,
        inputs=tensor_specs(in_names, _shapes(path, specs_in, in_names)),
        outputs=tensor_specs(out_names, _shapes(path, specs_out, out_names)),
        call=call,
        graph=graph,
    )
    if written:
        if not settle(call, source.inputs, function.variables):
            raise _stateful(path, name, written)
        source = replace(source, notes=(NOTE,))
    source = without_tables(source)
    if has_fake_quant(_nodes(function)):
        source = with_learned_ranges(source)
    kinds = floats_of(_nodes(function))
    return in_float32(source, source, kinds) if kinds else source


def _choose(path: Path, names: Sequence[str], signature: str | None) -> str:
    has = ", ".join(names) or "none"
    if signature is None and DEFAULT not in names and len(names) > 1:
        raise ModelError(f"{path} has the signatures {has}", advice="Choose one with --signature NAME.")
    name = signature or (DEFAULT if DEFAULT in names or not names else names[0])
    if name not in names:
        raise ModelError(f"{path} has no signature {name!r}", advice=f"It has: {has}.")
    return name


def _nodes(function: Any) -> list[Any]:
    graph = function.graph.as_graph_def()
    return [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]


def _written(path: Path, name: str, function: Any) -> list[str]:
    """The operations that change what the next call may see; empty, or writes of what only variables decide.

    Raises:
        ModelError: There are others.
    """
    found = sorted(
        {node.op for node in _nodes(function) if node.op.startswith(STATE) and not node.op.startswith(NO_STATE)}
    )
    if found and (found != [WRITE] or not writes_from_variables_alone(function)):
        raise _stateful(path, name, found)
    return found


def _stateful(path: Path, name: str, operations: Sequence[str]) -> ModelError:
    return ModelError(
        f"{path}: the signature {name!r} keeps state between calls ({', '.join(operations)})",
        advice="Stateful models are not converted. Export a function that takes the state as an input and returns it.",
    )


def _shapes(path: Path, specs: Mapping[str, Any], order: Sequence[str]) -> list[tuple[Shape, str]]:
    for name in order:
        if specs[name].shape.rank is None:
            raise ModelError(f"{path}: tensor {name!r} has no rank", advice="Export the model with an input signature.")
    return [(tuple(specs[name].shape.as_list()), specs[name].dtype.name) for name in order]
