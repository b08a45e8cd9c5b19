"""An .onnx file in, its graph and its weights out, apart: the weights are arrays, and where they lie outside, maps.

Source: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md. `sources/safety_onnx.py` has read the file before;
every place outside of it is checked here once more, because this is where it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.onnx.prepare import WEIGHT, graphs, split_weights
from edgeloop.convert.sources.safety_onnx import external_place
from edgeloop.errors import ModelError
from edgeloop.extras import need

onnx: Any = need("onnx", extra="convert")
helper: Any = need("onnx.helper", extra="convert")


def read_onnx(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The ModelProto without its large constants (their types and shapes stay), and these by name.

    Raises:
        ModelError: No ONNX model, no inputs or outputs, or a tensor outside that may not be read.
    """
    whole = load(path)
    weights: dict[str, np.ndarray] = {}
    for tensor in tensors(whole):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            array = _outside(path, tensor)
            if any(tensor.name == own.name for own in whole.graph.initializer) and array.size >= WEIGHT:
                weights[tensor.name] = array
            else:
                tensor.raw_data = array.tobytes()
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
    weights = split_weights(whole, weights)
    light = onnx.ModelProto()  # a copy: protobuf frees what was taken out of a message with the message
    light.CopyFrom(whole)
    return light, weights


def load(path: Path) -> Any:
    """The ModelProto as it is in the file.

    Raises:
        ModelError: No ONNX model, or one without inputs or outputs.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as e:  # protobuf's DecodeError is another class in each of its implementations
        raise ModelError(
            f"{path} is not an ONNX model ({type(e).__name__})",
            advice="Export it again, or fetch it again.",
        ) from e
    inputs = input_names(model)
    if not inputs or not model.graph.output:
        raise ModelError(
            f"{path} has {len(inputs)} inputs and {len(model.graph.output)} outputs",
            advice="It needs at least one of each.",
        )
    return model


def input_names(model: Any) -> list[str]:
    """Names of the inputs that have to be fed: before IR 4 constants are listed among them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in constants]


def tensors(model: Any) -> Iterator[Any]:
    """Every TensorProto: initializers, and attributes of nodes, in all graphs and functions."""
    for graph in graphs(model.graph):
        yield from graph.initializer
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    for node in (*nodes, *(node for function in model.functions for node in function.node)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _outside(path: Path, tensor: Any) -> np.ndarray:
    """A map of the numbers in the file beside the model."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    if dtype.name in ("int4", "uint4") or dtype.kind == "O":
        raise ModelError(
            f"{path} keeps the tensor {tensor.name!r} of {dtype.name} in a file beside it",
            advice="Save the model in one file.",
        )
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file, offset = external_place(path, tensor.name, entries, math.prod(shape) * dtype.itemsize)
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", offset, shape)
