"""A .tflite whose float weights are stored small (float16, sparse) in; the same with plain float32 weights out.

The operators that unpack such constants (DEQUANTIZE, DENSIFY) keep quantizers from seeing weights at all. Unpacked
here, once, the file converts into every scheme like one that was written in float32.

Source of the sparse layout: https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs, SparsityParameters)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import clear_unused, read_tree, write_tree
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.schema import TENSOR_TYPES

UNPACKING = frozenset({"DEQUANTIZE", "DENSIFY"})
FLOATS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def with_float32_weights(data: bytes) -> bytes:
    """`data` without the operators that unpack float16 and sparse constants. Itself, if it has none.

    Integer weights stay as they are, and so does what is float16 but computed.

    Raises:
        ValueError: A sparse constant names values that it does not hold.
    """
    if not any(op.name in UNPACKING for graph in read_tflite(data).graphs for op in graph.operators):
        return data
    tree = read_tree(data)
    if not sum([_unpack(tree, position) for position in range(len(tree.subgraphs))]):
        return data
    return write_tree(tree)


def _unpack(tree: Any, position: int) -> int:
    """Unpack the constants of one graph in place; how many operators are gone."""
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    graph = tree.subgraphs[position]
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]
    unpacked: dict[int, np.ndarray] = {}  # by the tensor that it is the value of
    kept, touched = [], set()
    for op in graph.operators:
        source, kind = op.inputs[0] if len(op.inputs or ()) else -1, kinds[op.opcodeIndex]
        if kind == schema.BuiltinOperator.DENSIFY:
            value = _dense(tree, graph.tensors[source])
        elif kind == schema.BuiltinOperator.DEQUANTIZE:
            small = unpacked.get(source, _constant(tree, graph.tensors[source]))
            value = small.astype(np.float32) if small is not None and small.dtype == np.float16 else None
        else:
            value = None
        if value is None:
            kept.append(op)
        else:
            unpacked[op.outputs[0]] = value
            touched |= {source, op.outputs[0]}
    graph.operators = kept
    read = {*graph.inputs, *graph.outputs, *(i for op in kept for i in op.inputs)}
    for i in sorted(unpacked.keys() & read):
        tree.buffers.append(schema.BufferT(data=np.ascontiguousarray(unpacked[i]).view(np.uint8).ravel()))
        graph.tensors[i].buffer = len(tree.buffers) - 1
    _drop(tree, position, touched - read)
    return len(unpacked)


def _constant(tree: Any, tensor: Any) -> np.ndarray | None:
    """The values of a plain constant in its shape; None for others, and for types that numpy lacks."""
    data = tree.buffers[tensor.buffer].data
    dtype = FLOATS.get(TENSOR_TYPES[tensor.type])
    if data is None or not len(data) or dtype is None or tensor.sparsity is not None:
        return None
    return np.frombuffer(np.asarray(data, np.uint8), dtype).reshape([int(n) for n in tensor.shape or ()])


def _dense(tree: Any, tensor: Any) -> np.ndarray | None:
    """The values of a sparse float constant, with zeros between them; None for others.

    Its levels are the dimensions in some order, then blocks of some of them. A dense level holds every place; of a
    compressed one `segments[i]` to `segments[i + 1]` say which of `indices` are those of place i of the level above.

    Raises:
        ValueError: Its levels do not fit its shape, or name values that it does not hold.
    """
    data, dtype = tree.buffers[tensor.buffer].data, FLOATS.get(TENSOR_TYPES[tensor.type])
    if tensor.sparsity is None or dtype is None or data is None:
        return None
    levels, order = tensor.sparsity.dimMetadata, list(tensor.sparsity.traversalOrder)
    shape, blocks = [int(n) for n in tensor.shape], list(tensor.sparsity.blockMap or ())
    # one row a value: its place at every level, from the outermost in, and where its data is
    at, places = np.zeros(1, np.int64), np.zeros((1, 0), np.int64)
    for level in levels:
        if level.format == 0:  # dense
            starts, counts = at * int(level.denseSize), np.full(len(at), int(level.denseSize))
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            starts, counts = segments[at], segments[at + 1] - segments[at]
        if counts.min(initial=0) < 0 or counts.sum() > np.prod(shape):
            raise ValueError(f"a level of {counts.sum()} values in a tensor of shape {shape}")
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at, places = np.repeat(starts, counts) + within, np.repeat(places, counts, axis=0)
        inner = within if level.format == 0 else np.asarray(level.arrayIndices.values, np.int64)[at]
        places = np.column_stack([places, inner])
    along = {axis: places[:, level] for level, axis in enumerate(order)}
    index = [along[axis] for axis in range(len(shape))]
    for block, axis in enumerate(blocks):
        size = int(levels[order.index(len(shape) + block)].denseSize)
        index[axis] = index[axis] * size + along[len(shape) + block]
    values = np.frombuffer(np.asarray(data, np.uint8), dtype)
    result = np.zeros(shape, dtype)
    result[tuple(index)] = values[at]
    return result


def _drop(tree: Any, position: int, gone: set[int]) -> None:
    """Leave out tensors that nothing reads, and the data that only they had."""
    graph = tree.subgraphs[position]
    left = [i for i in range(len(graph.tensors)) if i not in gone]
    moved = {-1: -1, **{was: now for now, was in enumerate(left)}}
    graph.tensors = [graph.tensors[i] for i in left]
    graph.inputs, graph.outputs = ([moved[i] for i in side] for side in (graph.inputs, graph.outputs))
    for op in graph.operators:
        for name in ("inputs", "outputs", "intermediates"):
            setattr(op, name, [moved[i] for i in getattr(op, name) or ()])
    for signature in (s for s in tree.signatureDefs or () if s.subgraphIndex == position):
        for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
            entry.tensorIndex = moved[entry.tensorIndex]
    clear_unused(tree)
