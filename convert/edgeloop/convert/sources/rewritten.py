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
    _rename_functions(graph_def)
    rewrite(tf, graph_def)
    context = need("tensorflow.python.eager.context", extra="convert").context()
    for function in graph_def.library.function:
        context.add_function_def(function)
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


def _rename_functions(graph_def: Any) -> None:
    """TensorFlow keeps the function of a name that it has seen before, whatever is in the new one."""
    functions = graph_def.library.function
    names = {function.signature.name: f"{function.signature.name}_rewritten" for function in functions}
    for function in functions:
        function.signature.name = names[function.signature.name]
    for node in (*graph_def.node, *(node for function in functions for node in function.node_def)):
        node.op = names.get(node.op, node.op)
        for attr in node.attr.values():
            for called in (attr.func, *attr.list.func) if attr.HasField("func") else tuple(attr.list.func):
                called.name = names.get(called.name, called.name)
