"""A source and a change of its graph in, the source that computes the changed graph out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.sources.source_value import Arrays, Source
from edgeloop.extras import need


def rewritten(
    source: Source,
    rewrite: Callable[[Any, Any], None],
    floats: Collection[str] = (),
    *,
    frozen: Any = None,
    inputs: Sequence[TensorSpec] = (),
) -> Source:
    """The source with its frozen graph changed in place by `rewrite(tf, graph_def)`; inputs and outputs of the types
    `floats` are float32 afterwards.

    Args:
        frozen: The FrozenGraph; None: it is made here.
        inputs: What the inputs are afterwards; none: the source's own.
    """
    from edgeloop.convert.forms.freeze import freeze  # which knows Source

    tf = need("tensorflow", extra="convert")
    frozen = frozen or freeze(source).functional
    graph_def = type(frozen.graph)()
    graph_def.CopyFrom(frozen.graph)
    _rename_functions(graph_def)
    rewrite(tf, graph_def)
    context = need("tensorflow.python.eager.context", extra="convert").context()
    for function in graph_def.library.function:
        context.add_function_def(function)
    inputs, outputs = (
        tuple(replace(spec, dtype="float32" if spec.dtype in floats else spec.dtype) for spec in side)
        for side in (inputs or source.inputs, source.outputs)
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


def replace_by_identity(graph_def: Any, type_of: Callable[[Any], int | None]) -> None:
    """Make an Identity of the first input of every node, in the graph and its functions, for which `type_of(node)` is a
    type. In a function others name an output by what its operation calls it: node:y:0 of a Cast is then node:output:0.
    """
    _replace(graph_def.node, type_of)
    for function in graph_def.library.function:
        made = _replace(function.node_def, type_of)
        for node in function.node_def:
            node.input[:] = [_of_identity(name, made) for name in node.input]
        for key, name in list(function.ret.items()):
            function.ret[key] = _of_identity(name, made)


def _replace(nodes: Any, type_of: Callable[[Any], int | None]) -> set[str]:
    """The names of the nodes that are Identity now."""
    made = set()
    for node in nodes:
        kind = type_of(node)
        if kind is not None:
            node.op = "Identity"
            node.input[:] = [node.input[0], *(name for name in node.input[1:] if name.startswith("^"))]
            node.attr.clear()
            node.attr["T"].type = kind
            made.add(node.name)
    return made


def _of_identity(name: str, made: Collection[str]) -> str:
    node, colon, _ = name.partition(":")
    return f"{node}:output:0" if colon and node in made else name


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
