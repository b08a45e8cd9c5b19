"""What every export wants of a frozen GraphDef: no order without data, no node that nobody needs."""

from __future__ import annotations

from typing import Any

from edgeloop.extras import need

# the input that says the shape of a list's elements
ELEMENT_SHAPE = {"TensorListReserve": 0, "EmptyTensorList": 0, "TensorListFromTensor": 1, "TensorListStack": 1}


CHANGE = "Change that part of the model."
INSTEAD = {  # operations that neither TFLite nor TF.js has, whose parts both have
    "CombinedNonMaxSuppression": "Call tf.image.non_max_suppression_padded for each class instead.",
}


def change_advice(graph: Any) -> str:
    """What to do about a graph that cannot be converted."""
    operations = {node.op for node in graph.node}.union(n.op for f in graph.library.function for n in f.node_def)
    return next((advice for operation, advice in INSTEAD.items() if operation in operations), CHANGE)


def drop_control_inputs(graph: Any) -> None:
    """Leave out order that carries no data. A stateless graph needs none, TF.js fails on it, and only control inputs
    keep assertions, which no device runtime has.

    In a lowered loop a constant's control input says which frame it belongs to: constants keep theirs.
    """
    for node in graph.node:
        if node.op != "Const" and any(name.startswith("^") for name in node.input):
            data = data_inputs(node)
            del node.input[:]
            node.input.extend(data)


def data_inputs(node: Any) -> list[str]:
    """Its inputs that carry data."""
    return [name for name in node.input if not name.startswith("^")]


def infer_one_size(graph: Any) -> None:
    """Reshape(x, [shape(x)[0], 64]) becomes Reshape(x, [-1, 64]): the same result, without computing the shape.

    Keras writes the former for every Flatten with a free batch. Lowered, it is SHAPE, STRIDED_SLICE and PACK, which
    the quantizer leaves in float between two conversions.
    """
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [n for n in graph.node if n.op == "Reshape"]:
        pack = nodes.get(node.input[1].split(":")[0])
        if pack is None or pack.op != "Pack":
            continue
        parts = [nodes[name.split(":")[0]] for name in data_inputs(pack)]
        sizes = [int(tf.make_ndarray(p.attr["value"].tensor)) if p.op == "Const" else None for p in parts]
        if sizes.count(None) != 1 or any(size is not None and size <= 0 for size in sizes):
            continue
        shape = graph.node.add(name=f"{node.name}/inferred_shape", op="Const")
        shape.attr["dtype"].type = tf.int32.as_datatype_enum
        known = [-1 if size is None else size for size in sizes]
        shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(known, tf.int32))
        node.attr["Tshape"].type = tf.int32.as_datatype_enum
        shape.input.extend(dict.fromkeys(name for p in parts for name in p.input if p.op == "Const"))  # its frame
        node.input[1] = shape.name


def expand_dims(graph: Any) -> None:
    """x[:, None], a slice that only adds axes, becomes ExpandDims(x, 1).

    TFLite has no slices that add axes, and its converter refuses them where a size is free.
    """
    tf = need("tensorflow", extra="convert")
    for nodes, result in ((graph.node, ""), *((function.node_def, ":output:0") for function in graph.library.function)):
        slices = [node for node in nodes if node.op == "StridedSlice" and node.attr["new_axis_mask"].i]
        constants = {node.name: node for node in nodes if node.op == "Const"} if slices else {}
        for node in slices:
            strides = constants.get(node.input[3].split(":")[0])
            if strides is None:
                continue
            axes = _only_new_axes(node, tf.make_ndarray(strides.attr["value"].tensor))
            value, types = node.input[0], {"T": node.attr["T"].type, "Tdim": tf.int32.as_datatype_enum}
            for axis in axes:
                where = nodes.add(name=f"{node.name}/axis_{axis}", op="Const", input=strides.input)
                where.attr["dtype"].type = tf.int32.as_datatype_enum
                where.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(axis, tf.int32))
                last = axis == axes[-1]
                made = node if last else nodes.add(name=f"{node.name}/expanded_{axis}")
                become(made, "ExpandDims", [value, where.name + result], **types)
                value = made.name + result


def _only_new_axes(node: Any, strides: Any) -> list[int]:
    """Where the slice adds its axes, in order; nothing where it does anything else."""
    new, begin, end, ellipsis, shrink = (
        node.attr[f"{word}_mask"].i for word in ("new_axis", "begin", "end", "ellipsis", "shrink_axis")
    )
    added = [i for i in range(len(strides)) if new >> i & 1]
    kept = [i for i in range(len(strides)) if i not in added]
    whole = all(begin >> i & 1 and end >> i & 1 and strides[i] == 1 for i in kept)
    return added if whole and not ellipsis and not shrink else []


def fix_list_batch(graph: Any, batch: int) -> None:
    """Give the lists of a loop, whose elements are [any, ...], elements of [batch, ...].

    A loop that was traced with a free batch says so in constants, which the batch of the inputs does not reach.
    """
    tf = need("tensorflow", extra="convert")
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        shapes = {node.input[ELEMENT_SHAPE[node.op]].split(":")[0] for node in nodes if node.op in ELEMENT_SHAPE}
        for node in nodes:
            if node.name in shapes and node.op == "Const":
                sizes = tf.make_ndarray(node.attr["value"].tensor)
                if sizes.ndim == 1 and len(sizes) and sizes[0] == -1:
                    known = [batch, *sizes[1:]]
                    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(known, tf.as_dtype(sizes.dtype)))


def prune(graph: Any, ends: set[str]) -> None:
    """Leave out the nodes and functions that no output needs, and placement beside a node (`_class`), which may be one
    of them."""
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
    functions = {function.signature.name: function for function in graph.library.function}
    called = _called(graph.node, functions)
    for i in reversed([i for i, f in enumerate(graph.library.function) if f.signature.name not in called]):
        del graph.library.function[i]
    for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
        if "_class" in node.attr:
            del node.attr["_class"]


def _called(nodes: Any, functions: dict[str, Any]) -> set[str]:
    """Names of the functions that these nodes call, and that those call."""
    waiting, called = list(nodes), set[str]()
    while waiting:
        node = waiting.pop()
        for value in node.attr.values():
            for function in (value.func, *value.list.func):
                if function.name in functions and function.name not in called:
                    called.add(function.name)
                    waiting += functions[function.name].node_def
        if node.op in functions and node.op not in called:  # a call by the function's own name
            called.add(node.op)
            waiting += functions[node.op].node_def
    return called


def without_erfc(graph: Any) -> Any:
    """The graph with 1 - erf(x) for erfc(x), which neither ONNX nor TF.js has; Keras computes the exact GELU with it.

    The relative precision of small results is lost: an absolute 6e-8 is left.
    """
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    if not any(node.op == "Erfc" for nodes in bodies for node in nodes):
        return graph
    made = type(graph).FromString(graph.SerializeToString())
    for node in [node for node in made.node if node.op == "Erfc"]:
        _write_erfc(made.node, node, "")
    for function in made.library.function:
        for node in [node for node in function.node_def if node.op == "Erfc"]:
            _write_erfc(function.node_def, node, ":{}:0")
            # a function's body names a result by its operation's own word for it
            _rename(function, f"{node.name}:y:0", f"{node.name}:z:0")
    return made


def _write_erfc(nodes: Any, node: Any, result: str) -> None:
    tf = need("tensorflow", extra="convert")
    kind = node.attr["T"].type
    erf = nodes.add(name=f"{node.name}/erf", op="Erf", input=list(node.input))
    erf.attr["T"].type = kind
    one = nodes.add(name=f"{node.name}/one", op="Const")
    one.attr["dtype"].type = kind
    one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, tf.as_dtype(kind)))
    become(node, "Sub", [one.name + result.format("output"), erf.name + result.format("y")], T=kind)


def _rename(function: Any, old: str, new: str) -> None:
    for node in function.node_def:
        node.input[:] = [new if name == old else name for name in node.input]
    for key, name in function.ret.items():
        function.ret[key] = new if name == old else name


def become(node: Any, op: str, inputs: list[str], **types: int) -> None:
    """Another operation under the same name; `types` are its attributes."""
    node.op = op
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    for key, value in types.items():
        node.attr[key].type = value


def shapes_of(graph: Any) -> dict[str, list[int | None]]:
    """By the name of a tensor; no sizes where the rank is unknown."""
    tf = need("tensorflow", extra="convert")
    with tf.Graph().as_default() as made:
        tf.import_graph_def(graph, name="")
    tensors = [tensor for operation in made.get_operations() for tensor in operation.outputs]
    return {tensor.name: tensor.shape.as_list() if tensor.shape.rank else [] for tensor in tensors}


def tensor_name(name: str) -> str:
    """Of an input of a node, with the number of the result."""
    return name if ":" in name else f"{name}:0"
