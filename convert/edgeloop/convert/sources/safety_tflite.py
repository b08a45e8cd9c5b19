"""A .tflite: what an interpreter would trust and crash on. LiteRT checks little of a flatbuffer before it reads it.

Source: the schema inside ai-edge-litert, https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.sources.finite import refuse_not_finite
from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.files.flatbuffer import BUILTIN_CUSTOM, TfliteFile, read_tflite

BITS = {  # of an element; strings, resources and variants have no size of their own
    **dict.fromkeys(("complex128",), 128),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float16", "int16", "uint16", "bfloat16"), 16),
    **dict.fromkeys(("int8", "uint8", "bool"), 8),
    **dict.fromkeys(("int4", "uint4"), 4),
    **dict.fromkeys(("int2",), 2),
}
FLOATS = {"float32": "<f4", "float16": "<f2", "float64": "<f8"}


def scan_tflite(path: Path) -> list[str]:
    """Nothing in a .tflite of builtin operators runs code, so the list is empty.

    Raises:
        ModelError: Offsets out of range, shapes and scales that cannot be, NaN weights, operators no runtime has.
    """
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        raise ModelError(
            f"{path} has {size} bytes, more than the {LIMIT_BYTES} that a flatbuffer can hold",
            advice="Get the model from a source you trust.",
        )
    data = path.read_bytes()
    model = read_tflite(data, str(path))
    if not model.graphs:
        raise ModelError(f"{path} is a .tflite file without a graph", advice="Convert the model again.")
    _refuse_operators(path, model)
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    raw = schema.Model.GetRootAs(data, 0)
    for position, graph in enumerate(model.graphs):
        table = raw.Subgraphs(position)
        ends = {*graph.inputs, *graph.outputs}
        for i, tensor in enumerate(graph.tensors):
            name = f"{tensor.name!r} ({i} of graph {position})"
            shape = _shape(path, name, table.Tensors(i), tensor.dtype, i in ends)
            _check_quantization(path, name, table.Tensors(i), shape)
            _check_data(path, name, raw, table.Tensors(i), tensor.dtype, shape, len(data))
    return []


def _refuse_operators(path: Path, model: TfliteFile) -> None:
    custom = {op.name for graph in model.graphs for op in graph.operators if op.custom} - BUILTIN_CUSTOM
    flex = sorted(name.removeprefix("Flex") for name in custom if name.startswith("Flex"))
    if flex:
        raise ModelError(
            f"{path} needs TensorFlow itself for {', '.join(flex)} (Flex operators), which no device runtime has",
            advice="Convert the model again with builtin operators only.",
        )
    unknown = {op.name for graph in model.graphs for op in graph.operators if op.name.startswith("UNKNOWN_")}
    if custom | unknown:
        raise ModelError(
            f"{path} has the custom operators {', '.join(sorted(custom | unknown))}, which no runtime here knows",
            advice="Convert the model as it was before it was compiled or extended.",
        )


def _shape(path: Path, name: str, tensor: Any, dtype: str, end: bool) -> list[int]:
    """The sizes an interpreter allocates."""
    sizes = [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]
    signed = [int(tensor.ShapeSignature(i)) for i in range(tensor.ShapeSignatureLength())]
    if any(d < 0 for d in sizes) or any(d < -1 for d in signed):
        raise ModelError(
            f"{path}: the tensor {name} has the shape {sizes} {signed or ''}, and a size must be 0 or more",
            advice="Convert the model again.",
        )
    if signed and len(signed) != len(sizes):
        raise ModelError(
            f"{path}: the tensor {name} has the shapes {sizes} and {signed}, which differ in rank",
            advice="Convert the model again.",
        )
    if end and 0 in sizes:
        raise ModelError(
            f"{path}: the input or output {name} has the shape {sizes}, which holds no value",
            advice="Convert the model again.",
        )
    total = math.prod(sizes) * BITS.get(dtype, 8) // 8
    if total > LIMIT_BYTES:
        raise ModelError(
            f"{path}: the tensor {name} of shape {sizes} has {total} bytes, the limit is {LIMIT_BYTES}",
            advice="Convert a smaller model.",
        )
    return sizes


def _check_quantization(path: Path, name: str, tensor: Any, shape: list[int]) -> None:
    quantization = tensor.Quantization()
    if not quantization or not quantization.ScaleLength():
        return
    scales, zeros = quantization.ScaleAsNumpy(), quantization.ZeroPointLength()
    wrong = scales[~(np.isfinite(scales) & (scales > 0))]
    if wrong.size:
        raise ModelError(
            f"{path}: the tensor {name} has the scale {wrong[0]}, and a scale must be above 0",
            advice="Convert the model again.",
        )
    axis = quantization.QuantizedDimension()
    per_channel = len(scales) > 1
    if per_channel and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise ModelError(
            f"{path}: the tensor {name} of shape {shape} has {len(scales)} scales along dimension {axis}",
            advice="Convert the model again.",
        )
    if zeros not in (0, 1, len(scales)):
        raise ModelError(
            f"{path}: the tensor {name} has {len(scales)} scales and {zeros} zero points",
            advice="Convert the model again.",
        )


def _check_data(path: Path, name: str, model: Any, tensor: Any, dtype: str, shape: list[int], size: int) -> None:
    buffer = model.Buffers(tensor.Buffer())
    if buffer.Size() > 1 and not 0 < buffer.Offset() <= size - buffer.Size():  # data after the flatbuffer
        raise ModelError(
            f"{path}: the tensor {name} lies at byte {buffer.Offset()}, beyond the file of {size} bytes",
            advice="Fetch the file again.",
        )
    held = buffer.DataLength()
    if not held or dtype not in BITS or tensor.Sparsity():
        return
    expected = (math.prod(shape) * BITS[dtype] + 7) // 8
    if held != expected:
        raise ModelError(
            f"{path}: the tensor {name}, {dtype} {shape}, holds {held} bytes, expected {expected}",
            advice="Fetch the file again.",
        )
    if dtype in FLOATS:
        refuse_not_finite(path, name, buffer.DataAsNumpy().view(FLOATS[dtype]).reshape(shape), constant=True)
