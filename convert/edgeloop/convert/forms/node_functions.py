"""A node of a frozen graph as other operations, which are traced from TensorFlow's functions for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeloop.convert.forms.graph_nodes import become, data_inputs
from edgeloop.extras import need

Compute = Callable[..., Any]  # (TensorFlow, a tensor for each input) -> the result
INT32, INT64 = 3, 9  # DataType
GELU = {"Erf": "AddV2", "Erfc": "Mul"}  # what reads it there: 1 + erf(x), x * erfc(x)
ERFS = tuple(GELU)
# Eigen's generic_fast_erf_float: an odd rational function on [-4, 4]
# fmt: off
ABOVE = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
         -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)
BELOW = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
         -1.42647390514189e-02)
# fmt: on


def write_as(graph: Any, node: Any, compute: Compute, inputs: Sequence[tuple[str, int]]) -> None:
    """Let `node`, which has one result, be `compute` of `inputs`: the name of a tensor and its type, of any shape."""
    tf = need("tensorflow", extra="convert")
    specs = [tf.TensorSpec(None, tf.as_dtype(kind)) for _, kind in inputs]
    traced = tf.function(lambda *given: compute(tf, *given), autograph=False).get_concrete_function(*specs)
    given = {tensor.name.split(":")[0]: name for tensor, (name, _) in zip(traced.inputs, inputs, strict=True)}
    # a constant in a lowered loop says so by a control input, and so must those that are added
    constants = {one.name: one for one in graph.node if one.op == "Const" and one.input}
    frame = [constants[name].input[0] for name in data_inputs(node) if name in constants][:1]
    for part in traced.graph.as_graph_def().node:
        if part.name in given:
            continue
        made = graph.node.add()
        made.CopyFrom(part)
        made.name = f"{node.name}/{part.name}"
        made.input[:] = [given.get(name.split(":")[0]) or f"{node.name}/{name}" for name in part.input]
        if part.op == "Const":
            made.input.extend(frame)
    (result,) = traced.outputs
    node.op = "Identity"
    node.input[:] = [f"{node.name}/{result.name.removesuffix(':0')}"]
    node.attr.clear()
    node.attr["T"].type = result.dtype.as_datatype_enum


def write_bincounts(graph: Any) -> None:
    """DenseBincount, which TFLite lacks, as comparisons with 0, 1, ...: multi-hot encodings have it.

    Values beyond the last one count nowhere, as in TensorFlow.
    """
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "DenseBincount"]:
        values, size, weights = data_inputs(node)
        least, most = _bounds(tf, nodes, size)
        if least != most:
            continue
        given, kind = nodes[weights.split(":")[0]], node.attr["T"].type
        inputs = [(values, node.attr["Tidx"].type)]
        if given.op != "Const" or tf.make_ndarray(given.attr["value"].tensor).size:
            inputs.append((weights, kind))
        binary = node.attr["binary_output"].b
        write_as(graph, node, partial(_bincount, count=int(least), kind=kind, binary=binary), inputs)


def _bounds(tf: Any, nodes: Mapping[str, Any], name: str) -> tuple[float, float]:
    """What a number lies between: Keras writes a fixed length as min(n, max(n, the largest value + 1))."""
    node = nodes[name.split(":")[0]]
    if node.op == "Const":
        value = float(tf.make_ndarray(node.attr["value"].tensor))
        return value, value
    if node.op in ("Identity", "Cast"):
        return _bounds(tf, nodes, node.input[0])
    if node.op in ("Minimum", "Maximum"):
        choose = min if node.op == "Minimum" else max
        (a, b), (c, d) = (_bounds(tf, nodes, given) for given in node.input[:2])
        return choose(a, c), choose(b, d)
    return -math.inf, math.inf


def _bincount(tf: Any, values: Any, weights: Any = None, *, count: int, kind: int, binary: bool) -> Any:
    hits = tf.equal(tf.expand_dims(values, -1), tf.range(count, dtype=values.dtype))
    if binary:
        return tf.cast(tf.reduce_any(hits, -2), tf.as_dtype(kind))
    each = tf.cast(hits, tf.as_dtype(kind))
    return tf.reduce_sum(each if weights is None else each * tf.expand_dims(weights, -1), -2)


def write_buckets(graph: Any) -> None:
    """Bucketize, which neither ONNX nor TF.js has, as the number of boundaries that a value reaches."""
    for node in [node for node in graph.node if node.op == "Bucketize"]:
        boundaries = list(node.attr["boundaries"].list.f)
        (value,) = data_inputs(node)
        write_as(graph, node, partial(_bucket, boundaries=boundaries), [(value, node.attr["T"].type)])


def _bucket(tf: Any, value: Any, *, boundaries: Sequence[float]) -> Any:
    reached = tf.expand_dims(tf.cast(value, tf.float32), -1) >= tf.constant(boundaries, tf.float32)
    return tf.reduce_sum(tf.cast(reached, tf.int32), -1)


def write_reverses(graph: Any) -> None:
    """ReverseV2 of several axes as one after the other: tflite-runtime reverses one."""
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "ReverseV2"]:
        value, where = data_inputs(node)
        known = nodes[where.split(":")[0]]
        axes = tf.make_ndarray(known.attr["value"].tensor).ravel().tolist() if known.op == "Const" else []
        if len(axes) > 1:
            write_as(graph, node, partial(_reverse, axes=axes), [(value, node.attr["T"].type)])


def _reverse(tf: Any, value: Any, *, axes: Sequence[int]) -> Any:
    for axis in axes:
        value = tf.reverse(value, [axis])
    return value


def write_sign_bits(graph: Any) -> None:
    """The sign bit of a float, which Keras reads as that of an integer, by comparisons: no format has a Bitcast.

    Keras's argmax also puts -1e-38 where it is set for a zero, so that 0 is larger than -0; here they are equal.
    """
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}

    def made_by(name: str, *ops: str) -> Any | None:
        found = nodes.get(name.split(":")[0])
        return found if found is not None and found.op in ops else None

    for node in [node for node in graph.node if node.op == "Less"]:
        masked = made_by(node.input[0], "BitwiseAnd")
        bits = next(filter(None, (made_by(name, "Bitcast") for name in masked.input)), None) if masked else None
        if bits is not None and bits.attr["T"].type == tf.float32.as_datatype_enum:
            write_as(graph, node, _sign_bit, [(bits.input[0], bits.attr["T"].type)])
            nodes[node.name] = node
            for select in [one for one in graph.node if one.op == "SelectV2"]:
                both = made_by(select.input[0], "LogicalAnd")
                tiny = made_by(select.input[1], "Const")
                if both is None or tiny is None or node.name not in both.input or select.input[2] != bits.input[0]:
                    continue
                if np.abs(tf.make_ndarray(tiny.attr["value"].tensor)).max(initial=0) <= np.finfo(np.float32).tiny:
                    become(select, "Identity", [select.input[2]], T=select.attr["T"].type)


def _sign_bit(tf: Any, value: Any) -> Any:
    return tf.logical_or(value < 0, 1 / value < 0)  # 1 / -0 is -inf


def write_one_hots(graph: Any) -> None:
    """OneHot as comparisons: ONNX counts a negative index from the end, TensorFlow has no class for it."""
    for node in [node for node in graph.node if node.op == "OneHot"]:
        indices, depth, on, off = data_inputs(node)
        kind = node.attr["T"].type
        given = [(indices, node.attr["TI"].type), (depth, INT32), (on, kind), (off, kind)]
        write_as(graph, node, partial(_one_hot, axis=node.attr["axis"].i), given)


def _one_hot(tf: Any, indices: Any, depth: Any, on: Any, off: Any, *, axis: int) -> Any:
    classes = tf.cast(tf.range(depth), indices.dtype)
    if axis != -1:
        ones = tf.fill([tf.rank(indices) - axis], 1)
        classes = tf.reshape(classes, tf.concat([[-1], ones], 0))
    return tf.where(tf.equal(tf.expand_dims(indices, axis), classes), on, off)


def write_bands(graph: Any) -> None:
    """MatrixBandPart, the elements of a matrix near its diagonal and 0 elsewhere, as a mask."""
    for node in [node for node in graph.node if node.op == "MatrixBandPart"]:
        kind = node.attr["Tindex"].type or INT64
        types = node.attr["T"].type, kind, kind
        write_as(graph, node, _band, list(zip(data_inputs(node), types, strict=True)))


def _band(tf: Any, matrix: Any, lower: Any, upper: Any) -> Any:
    shape, lower, upper = tf.shape(matrix), tf.cast(lower, tf.int32), tf.cast(upper, tf.int32)
    rows, columns = tf.expand_dims(tf.range(shape[-2]), 1), tf.expand_dims(tf.range(shape[-1]), 0)
    # a negative limit keeps all on its side
    below = tf.logical_or(rows - columns <= lower, lower < 0)
    band = tf.logical_and(below, tf.logical_or(columns - rows <= upper, upper < 0))
    return tf.logical_and(matrix, band) if matrix.dtype == tf.bool else tf.where(band, matrix, tf.zeros_like(matrix))


def write_batched_gathers(graph: Any) -> None:
    """GatherV2 of rows of each batch as one of all rows: TF.js takes rows of other batches."""
    tf = need("tensorflow", extra="convert")
    nodes = {node.name: node for node in graph.node}
    for node in [node for node in graph.node if node.op == "GatherV2" and node.attr["batch_dims"].i > 0]:
        rows, indices, axis = data_inputs(node)
        where, batches = nodes[axis.split(":")[0]], node.attr["batch_dims"].i
        if where.op == "Const" and int(tf.make_ndarray(where.attr["value"].tensor)) == batches:
            given = [(rows, node.attr["Tparams"].type), (indices, node.attr["Tindices"].type)]
            write_as(graph, node, partial(_gather, batches=batches), given)


def _gather(tf: Any, rows: Any, indices: Any, *, batches: int) -> Any:
    shape = tf.shape(rows)
    count, each = tf.reduce_prod(shape[:batches]), shape[batches]
    flat = tf.reshape(rows, tf.concat([[-1], shape[batches + 1 :]], 0))
    inner = tf.fill([tf.rank(indices) - batches], 1)
    first = tf.reshape(tf.range(count) * each, tf.concat([shape[:batches], inner], 0))
    return tf.gather(flat, tf.cast(indices, tf.int32) + first)


def write_erfs(graph: Any, *, gelu: bool) -> None:
    """Erf and Erfc, which TFLite lacks, as an odd rational function, within 4e-7. Without `gelu` those stay that stand
    in a GELU, as far as the next operation tells: TFLite has that."""
    float32 = need("tensorflow", extra="convert").float32.as_datatype_enum
    for node in [node for node in graph.node if node.op in ERFS and node.attr["T"].type == float32]:
        readers = [one.op for one in graph.node if node.name in one.input]
        if gelu or readers != [GELU[node.op]]:
            write_as(graph, node, _erf if node.op == "Erf" else _erfc, [(node.input[0], float32)])


def _erf(tf: Any, x: Any) -> Any:
    x = tf.clip_by_value(x, -4.0, 4.0)
    square = x * x
    return (
        x
        * tf.math.polyval(list(map(tf.constant, ABOVE)), square)
        / tf.math.polyval(list(map(tf.constant, BELOW)), square)
    )


def _erfc(tf: Any, x: Any) -> Any:
    return 1.0 - _erf(tf, x)


EVERYWHERE = (write_bincounts, write_reverses, write_sign_bits)  # for every format
