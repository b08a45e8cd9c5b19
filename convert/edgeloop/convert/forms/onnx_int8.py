"""A float32 ONNX model in, one with int8 weights and activations out (QuantizeLinear and DequantizeLinear pairs).

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (static, per channel, min-max)
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.convert.forms.float_operators import FloatOperator, listed
from edgeloop.convert.forms.onnx_graph import OnnxGraph, ordered, weight_bytes, without_unused
from edgeloop.convert.forms.onnx_islands import IN_INT8, MOVERS, Ranges, computes, float_nodes
from edgeloop.convert.forms.onnx_pooling import means_as_pools
from edgeloop.convert.forms.onnx_ranges import measure
from edgeloop.convert.forms.onnx_weights import correct_biases, mean_axes, shrink_weights
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

ADVICE = "ONNX Runtime has no int8 kernel for it"
LEAST_SAVED = 0.1  # of the bytes of all weights, by a file that is int8 in part


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxInt8:
    """A model in int8; `left`: what computes in float. Empty: nothing."""

    data: bytes
    left: tuple[FloatOperator, ...]


def to_int8(data: bytes, samples: Samples, fixed: int | None) -> OnnxInt8:
    """The model with int8 in it, per channel, ranges from the extremes over all `samples`; the same bytes each time.

    Args:
        fixed: The model's own batch, where it is not free.

    Raises:
        ModelError: onnxruntime refuses the model, or onnx's checker what came out, or so much stayed in float that
            the file would save less than LEAST_SAVED.
    """
    # 1.31 reports sessions to its makers from the moment it is imported, and leaves a .ses in the temporary folder
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnx = need("onnx", extra="convert")
    try:
        with tempfile.TemporaryDirectory() as scratch, _quiet():
            graph = OnnxGraph(_optimized(means_as_pools(data), Path(scratch)))
            before = weight_bytes(graph.model.graph)
            quantizable = [node for node in graph.model.graph.node if node.op_type in IN_INT8 | MOVERS]
            values = sorted({n for node in quantizable for n in (*graph.computed(node), *_floats(graph, node.output))})
            ranges, means = measure(graph, samples, fixed, values, mean_axes(graph, ()))
            in_float = float_nodes(graph, ranges)
            correct_biases(graph, in_float, means)
            shrink_weights(graph, in_float)
            without_unused(graph.model.graph)
            proto = _quantized(graph, ranges, in_float)
        ordered(proto.graph)
        onnx.checker.check_model(proto)
    except Exception as e:  # onnxruntime and onnx raise their own types, ValueError, RuntimeError and more
        raise ModelError(
            f"ONNX Runtime cannot quantize the model: {one_line(e)}", advice="Choose another scheme."
        ) from e
    quantized = bytes(proto.SerializeToString(deterministic=True))
    left = float_operators_onnx(quantized)
    if left and weight_bytes(proto.graph) >= (1 - LEAST_SAVED) * before:
        raise ModelError(
            f"int8 would save less than {LEAST_SAVED:.0%} of the bytes of its weights: {listed(left)}",
            advice="Use the float32 variant onnx.",
        )
    return OnnxInt8(data=quantized, left=left)


def float_operators_onnx(data: bytes) -> tuple[FloatOperator, ...]:
    """Operators that compute floats: without an int8 kernel, or not between a DequantizeLinear and a QuantizeLinear.

    What only moves values about (the Transpose of a float input before it is quantized) computes nothing.
    """
    onnx = need("onnx", extra="convert")
    graph = OnnxGraph(onnx.load_from_string(data))

    def between(node: Any) -> bool:
        return all(_kind(graph, name) == "DequantizeLinear" for name in graph.computed(node)) and all(
            {reader.op_type for reader in graph.read_by.get(name, [])} == {"QuantizeLinear"} for name in node.output
        )

    return tuple(
        FloatOperator(op=node.op_type, layer=node.name or node.output[0], advice=ADVICE)
        for node in graph.model.graph.node
        if computes(graph, node) and not (node.op_type in IN_INT8 and between(node))
    )


def _optimized(data: bytes, scratch: Path) -> Any:
    onnx = need("onnx", extra="convert")
    preprocess = need("onnxruntime.quantization.shape_inference", extra="convert").quant_pre_process
    given, ready = scratch / "float32.onnx", scratch / "ready.onnx"
    given.write_bytes(data)
    # the symbolic shape inference wants sympy; a graph of tf2onnx has its shapes
    preprocess(given, ready, skip_symbolic_shape=True)
    return onnx.load(ready)


def _quantized(graph: OnnxGraph, ranges: Ranges, in_float: Collection[str]) -> Any:
    """By ONNX Runtime's quantizer, which gets the ranges that its own calibration would measure."""
    quantization = need("onnxruntime.quantization", extra="convert")
    calibrate = need("onnxruntime.quantization.calibrate", extra="convert")
    registry = need("onnxruntime.quantization.registry", extra="convert")
    quantizer = need("onnxruntime.quantization.qdq_quantizer", extra="convert").QDQQuantizer
    int8 = quantization.QuantType.QInt8
    known = {*registry.QLinearOpsRegistry, *registry.QDQRegistry}
    job = quantizer(
        graph.model,
        per_channel=True,
        reduce_range=False,
        weight_qType=int8,
        activation_qType=int8,
        tensors_range=calibrate.TensorsData(quantization.CalibrationMethod.MinMax, dict(ranges)),
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(in_float),
        op_types_to_quantize=sorted(known & (IN_INT8 | MOVERS)),
        # else a MaxPool, or what moves values, takes floats where nothing before it is in int8
        extra_options={"ForceQuantizeNoInputCheck": True},
    )
    job.quantize_model()
    return job.model.model


def _floats(graph: OnnxGraph, names: Iterable[str]) -> list[str]:
    return [name for name in names if name and name in graph.types and graph.is_float(name)]


def _kind(graph: OnnxGraph, name: str) -> str:
    return str(graph.made_by[name].op_type) if name in graph.made_by else ""


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
