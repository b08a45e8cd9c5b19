"""A traced source in, one graph without variables out; every export starts from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenGraph:
    """A graph whose weights are constants.

    Attributes:
        graph: The GraphDef. Nobody changes it: every export reads the same one.
        inputs: Names of its input tensors (`image:0`), in the order of the source's inputs.
        outputs: Names of its output tensors (`Identity:0`), in the order of the source's outputs.
    """

    graph: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def freeze(source: Source) -> FrozenGraph:
    """The source's signature as one graph. The inputs keep their names and their free dimensions.

    Raises:
        ModelError: The source is a .tflite, or holds state (a variable it writes, a table).
    """
    tf = need("tensorflow", extra="convert")
    # The public convert_variables_to_constants_v2 imports the finished graph once more to make a function of it, and
    # so does TFLiteConverter: on MobileNetV2 2.7 CPU seconds from the trace to the flatbuffer, 0.8 without.
    from tensorflow.python.framework import convert_to_constants as constants

    if source.graph is None:
        raise ModelError(
            f"{source.path} is a .tflite file, which has no TensorFlow graph", advice="Convert the Keras model instead."
        )
    names = [t.name for t in source.inputs]
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in source.inputs]
    call = source.graph

    def identities(*tensors: Any) -> list[Any]:
        # an input that is returned as it is, or a constant, would be no node of its own in the other formats
        return [tf.identity(value) for value in call(**dict(zip(names, tensors, strict=True)))]

    traced = tf.function(identities, input_signature=specs, autograph=False).get_concrete_function()
    data = constants._FunctionConverterDataInEager(func=traced, lower_control_flow=True, aggressive_inlining=False)
    graph, replaced = constants._replace_variables_by_constants(data)
    captured = traced.graph.internal_captures
    state = [t.name for i, t in enumerate(captured) if i not in replaced and t.dtype == tf.resource]
    if state:
        raise ModelError(
            f"{source.path} keeps state in {state[0]!r}, and stateful models are not converted",
            advice="Make the state an input and an output.",
        )
    inputs = tuple(t.name for t in traced.inputs[: len(specs)])
    outputs = tuple(t.name for t in traced.outputs)
    _infer_one_size(tf, graph)
    _prune(graph, {name.split(":")[0] for name in (*inputs, *outputs)})
    return FrozenGraph(graph=graph, inputs=inputs, outputs=outputs)


def _infer_one_size(tf: Any, graph: Any) -> None:
    """Reshape(x, [shape(x)[0], 64]) becomes Reshape(x, [-1, 64]): the same result, without computing the shape.

    Keras writes the former for every Flatten with a free batch. Lowered, it is SHAPE, STRIDED_SLICE and PACK, which
    the quantizer leaves in float between two conversions.
    """
    nodes = {node.name: node for node in graph.node}
    for node in [n for n in graph.node if n.op == "Reshape"]:
        pack = nodes.get(node.input[1].split(":")[0])
        if pack is None or pack.op != "Pack":
            continue
        parts = [nodes[name.split(":")[0]] for name in pack.input if not name.startswith("^")]
        sizes = [int(tf.make_ndarray(p.attr["value"].tensor)) if p.op == "Const" else None for p in parts]
        if sizes.count(None) != 1 or any(size is not None and size <= 0 for size in sizes):
            continue
        shape = graph.node.add(name=f"{node.name}/inferred_shape", op="Const")
        shape.attr["dtype"].type = tf.int32.as_datatype_enum
        known = [-1 if size is None else size for size in sizes]
        shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(known, tf.int32))
        node.attr["Tshape"].type = tf.int32.as_datatype_enum
        node.input[1] = shape.name


def _prune(graph: Any, ends: set[str]) -> None:
    """Leave out what no output needs."""
    nodes = {node.name: node for node in graph.node}
    waiting, needed = list(ends), set(ends)
    while waiting:
        for name in nodes[waiting.pop()].input:
            producer = name.lstrip("^").split(":")[0]
            if producer not in needed:
                needed.add(producer)
                waiting.append(producer)
    for i in reversed([i for i, node in enumerate(graph.node) if node.name not in needed]):
        del graph.node[i]
