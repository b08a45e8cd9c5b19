"""A traced source in, one graph without variables out; every export starts from it."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.source import Source
from edgeloop.errors import ModelError
from edgeloop.extras import need


def freeze(source: Source) -> Any:
    """A concrete function whose inputs and outputs are in the order of `source`, weights turned into constants.

    The inputs keep their names (`image:0`) and their free dimensions.

    Raises:
        ModelError: The source is a .tflite, or holds state (a variable it writes, a table).
    """
    tf = need("tensorflow", extra="convert")
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if source.graph is None:
        raise ModelError(f"{source.path} is a .tflite: it has no TensorFlow graph. Start from the Keras model.")
    names = [t.name for t in source.inputs]
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in source.inputs]
    graph = source.graph

    def call(*tensors: Any) -> list[Any]:
        # an input that is returned as it is, or a constant, would be no node of its own in the other formats
        return [tf.identity(value) for value in graph(**dict(zip(names, tensors, strict=True)))]

    traced = tf.function(call, input_signature=specs, autograph=False)
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    state = [t.name for t in frozen.inputs if t.dtype == tf.resource]
    if state:
        raise ModelError(f"{source.path} keeps state in {state[0]!r}. Stateful models are not converted.")
    return _infer_one_size(tf, frozen)


def _infer_one_size(tf: Any, frozen: Any) -> Any:
    """Reshape(x, [shape(x)[0], 64]) becomes Reshape(x, [-1, 64]): the same result, without computing the shape.

    Keras writes the former for every Flatten with a free batch. Lowered, it is SHAPE, STRIDED_SLICE and PACK, which
    the quantizer leaves in float between two conversions.
    """
    graph = frozen.graph.as_graph_def()
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
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    return wrapped.prune([t.name for t in frozen.inputs], [t.name for t in frozen.outputs])
