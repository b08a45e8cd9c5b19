"""A source and a change of its graph in, the source that computes the changed graph out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from edgeloop.convert.sources.source_value import Arrays, Source
from edgeloop.extras import need


def rewritten(source: Source, rewrite: Callable[[Any, Any], None], floats: Collection[str] = ()) -> Source:
    """The source with its frozen graph changed in place by `rewrite(tf, graph_def)`; inputs and outputs of the types
    `floats` are float32 afterwards."""
    from edgeloop.convert.forms.freeze import freeze  # which knows Source

    tf = need("tensorflow", extra="convert")
    frozen = freeze(source).functional
    graph_def = type(frozen.graph)()
    graph_def.CopyFrom(frozen.graph)
    rewrite(tf, graph_def)
    inputs, outputs = (
        tuple(replace(spec, dtype="float32" if spec.dtype in floats else spec.dtype) for spec in side)
        for side in (source.inputs, source.outputs)
    )

    def graph(**tensors: Any) -> list[Any]:
        given = {name: tensors[spec.name] for name, spec in zip(frozen.inputs, inputs, strict=True)}
        placed = {name.split(":")[0]: tensor for name, tensor in given.items()}
        made = tf.graph_util.import_graph_def(graph_def, placed, list(frozen.outputs), name="")
        for value, spec in zip(made, outputs, strict=True):
            value.set_shape(spec.shape)
        return made

    @cache
    def traced() -> Any:
        specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs}
        return tf.function(graph, autograph=False).get_concrete_function(**specs)

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        values = traced()(**{spec.name: tf.constant(arrays[spec.name], spec.dtype) for spec in inputs})
        return {spec.name: np.asarray(value) for spec, value in zip(outputs, values, strict=True)}

    return replace(source, inputs=inputs, outputs=outputs, graph=graph, call=call)
