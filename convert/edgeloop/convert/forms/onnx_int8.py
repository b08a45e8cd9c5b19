"""A float32 ONNX model in, one with int8 weights and activations out (QuantizeLinear and DequantizeLinear pairs).

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (static, per channel, min-max)
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.forms.float_operators import FloatOperator, listed
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

BATCH, BATCH_BYTES = 16, 1 << 20  # a calibration batch: as many samples, but no more bytes
STRIDE = 8  # batches whose extremes wait in memory before they are merged
PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})
MOVERS = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Pad"})
# What onnxruntime 1.31 computes in int8 where it stands between a pair, by the graph that it made of one operator and
# its pairs. Relu and Clip are gone there, as the QuantizeLinear behind them clips; Sin, Tanh, Sub, Div, ReduceMean,
# ConvTranspose and the normalizations stayed, between conversions and in float32.
IN_INT8 = frozenset(
    {
        *("Add", "ArgMax", "AveragePool", "Clip", "Concat", "Conv", "DepthToSpace", "Expand", "Gather"),
        *("GatherElements", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Relu", "Resize"),
        *("Sigmoid", "Slice", "Softmax", "Split", "Tile", "Where"),
    }
)
ADVICE = "ONNX Runtime has no int8 kernel for it; replace it, or use the float32 variant onnx"
# axes of a mean over height and width: the order of dimensions that puts the channels before both
PLANES = {(1, 2): (0, 3, 1, 2), (2, 3): (0, 1, 2, 3)}


def to_int8(data: bytes, samples: Samples, fixed: int | None) -> bytes:
    """The model with int8 in it, per channel, ranges from the extremes over all `samples`; the same bytes each time.

    Args:
        fixed: The model's own batch, where it is not free.

    Raises:
        ModelError: onnxruntime refuses the model, or onnx's checker what came out, or an operator stayed in float.
    """
    # 1.31 reports sessions to its makers from the moment it is imported, and leaves a .ses in the temporary folder
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnx = need("onnx", extra="convert")
    quantization = need("onnxruntime.quantization", extra="convert")
    registry = need("onnxruntime.quantization.registry", extra="convert")
    preprocess = need("onnxruntime.quantization.shape_inference", extra="convert").quant_pre_process
    try:
        with tempfile.TemporaryDirectory() as scratch, _quiet():
            given, ready, made = (Path(scratch) / name for name in ("float32.onnx", "ready.onnx", "int8.onnx"))
            given.write_bytes(_pooled(data))
            # the symbolic shape inference wants sympy; a graph of tf2onnx has its shapes
            preprocess(given, ready, skip_symbolic_shape=True)
            quantization.quantize_static(
                ready,
                made,
                _Reader(samples, fixed),
                quant_format=quantization.QuantFormat.QDQ,
                # left out, it takes list(set(...)): another order in every process
                op_types_to_quantize=sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry}),
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                # without it every batch's extremes stay in memory to the end; CalibMaxIntermediateOutputs loses them
                extra_options={"CalibStridedMinMax": STRIDE},
            )
            proto = onnx.load(made)
        onnx.checker.check_model(proto)
    except Exception as e:  # onnxruntime and onnx raise their own types, ValueError, RuntimeError and more
        raise ModelError(
            f"ONNX Runtime cannot quantize the model: {one_line(e)}", advice="Choose another scheme."
        ) from e
    quantized = bytes(proto.SerializeToString(deterministic=True))
    left = float_operators_onnx(quantized)
    if left:
        raise ModelError(listed(left), advice="Change these operators.")
    return quantized


def float_operators_onnx(data: bytes) -> tuple[FloatOperator, ...]:
    """Operators that compute floats: without an int8 kernel, or not between a DequantizeLinear and a QuantizeLinear.

    What only moves values about (the Transpose of a float input before it is quantized) computes nothing.
    """
    onnx = need("onnx", extra="convert")
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    constants = {w.name for w in graph.initializer}
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    read_by: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, set()).add(node.op_type)

    def in_float(node: Any) -> bool:
        given = [name for name in node.input if name and name not in constants]
        between = all(made_by.get(name) == "DequantizeLinear" for name in given) and all(
            read_by.get(name) == {"QuantizeLinear"} for name in node.output
        )
        floats = any(types.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT for name in node.output)
        in_int8 = between and node.op_type in IN_INT8
        return floats and not in_int8 and node.op_type not in PAIRS | MOVERS

    return tuple(
        FloatOperator(op=node.op_type, layer=node.name or node.output[0], advice=ADVICE)
        for node in graph.node
        if in_float(node)
    )


def _pooled(data: bytes) -> bytes:
    """The mean over height and width as GlobalAveragePool, which has an int8 kernel where ReduceMean has none."""
    onnx = need("onnx", extra="convert")
    model = onnx.load_from_string(data)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    make, nodes = onnx.helper.make_node, []
    for node in model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        axes = constants.get(node.input[1]) if len(node.input) > 1 else given.get("axes")
        order = PLANES.get(tuple(sorted(axes))) if node.op_type == "ReduceMean" and axes is not None else None
        if order is None or _rank(model, node.input[0]) != 4:
            nodes.append(node)
            continue
        planes, means = f"{node.output[0]}_planes", f"{node.output[0]}_means"
        nodes.append(make("Transpose", [node.input[0]], [planes], name=f"{node.name}_planes", perm=order))
        nodes.append(make("GlobalAveragePool", [planes], [means], name=node.name))
        if given.get("keepdims", 1):
            back = [order.index(axis) for axis in range(4)]
            nodes.append(make("Transpose", [means], [node.output[0]], name=f"{node.name}_back", perm=back))
        else:
            nodes.append(make("Flatten", [means], [node.output[0]], name=f"{node.name}_flat", axis=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def _rank(model: Any, name: str) -> int | None:
    onnx = need("onnx", extra="convert")
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {
        v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info) if v.type.tensor_type.HasField("shape")
    }
    return len(known[name].shape.dim) if name in known else None


class _Reader:
    """What onnxruntime wants to read samples with: `set_range` names the batches that `get_next` gives."""

    def __init__(self, samples: Samples, fixed: int | None) -> None:
        sample_bytes = sum(array[:1].nbytes for array in samples.inputs.values())
        self.size = samples.at_once(fixed or max(1, min(BATCH, BATCH_BYTES // sample_bytes)))
        strides = -(-len(samples) // (self.size * STRIDE))
        self.count = strides * STRIDE  # the calibrator refuses a number that is no multiple of the stride
        self.batches = samples.batches(self.size, fill=fixed is not None)
        self.left = 0

    def __len__(self) -> int:
        return self.count

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = end_index - start_index  # they come in order, each once

    def get_next(self) -> dict[str, np.ndarray] | None:
        self.left -= 1
        return next(self.batches, None) if self.left >= 0 else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It logs advice to the root logger and prints to stdout; a command's stdout is one document."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(before)
