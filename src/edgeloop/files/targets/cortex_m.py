"""A graph in; which operators TensorFlow Lite Micro has, and the arena, flash and RAM they need, out.

Sources
    operators  the resolver with all of them, https://github.com/tensorflow/tflite-micro
               (python/tflite_micro/python_ops_resolver.cc), each one tried on PyPI's tflite-micro 0.dev20261023182759
    types      what its kernels' Prepare refuses, seen with that package on the models of docs/targets.md
    arena      arena.py for the head, tflite_micro_memory.py for the tail
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.files.arena import arena_bytes, run_with
from edgeloop.files.graph_facts import GraphFacts, Step
from edgeloop.files.targets.operator_refusal import OperatorRefusal, rows
from edgeloop.files.targets.tflite_micro_memory import persistent_bytes, unknown_kernels

RESOLVER = "tflite-micro 0.dev20261023"
RESOLVED = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
OPERATORS = frozenset(RESOLVED.split())
CUSTOM = frozenset({"TFLite_Detection_PostProcess", "CIRCULAR_BUFFER", "ethos-u"})
SIGNAL = "Signal"  # SignalRfft and the others of signal/micro/kernels: names that begin so
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "SVDF"})
# Copies and conversions take uint8; kernels that compute do not
COPIES = """
ARG_MAX ARG_MIN CAST DEQUANTIZE EXPAND_DIMS GATHER PACK QUANTIZE RESHAPE SHAPE SPLIT SPLIT_V SQUEEZE
STRIDED_SLICE UNPACK
"""
BYTES_TOO = frozenset(COPIES.split())
CONCATENATION_LIMIT = 10  # kMaxInputNum of its kernel
STORED = frozenset({"float16", "bfloat16", "float64", "string", "complex64", "complex128"})


class CortexMReason(enum.Enum):
    """Why an operator is not supported; the value is what to do about it."""

    OPERATOR = "Replace the operator, or write a kernel and add it to the resolver."
    DTYPE = "Quantize the model to full int8."
    FLOAT = "Keep the operator in float32, or move it out of the model."
    DYNAMIC = "Give every dimension but the batch a fixed size."
    INPUTS = "Concatenate them in two steps."


def refusals(graph: GraphFacts) -> tuple[OperatorRefusal | None, ...]:
    """For each operator None, or why TensorFlow Lite Micro cannot run it."""
    return tuple(next((found for rule in RULES if (found := rule(graph, step))), None) for step in graph.steps)


def report(graphs: Sequence[GraphFacts], model_bytes: int) -> dict[str, Any]:
    """What `--json` prints of a file: its first graph, which runs, and those that its control flow calls.
    `arena_bytes` is None where a part of it is not known, and `arena_unknown` says why.

    Raises:
        ValueError: A graph calls itself, or one that the file does not have.
    """
    first, *called = run_with(graphs)
    head, tail = arena_bytes(first, first.steps, graphs), persistent_bytes(graphs)
    found = [pair for g in (first, *called) for pair in zip(g.steps, refusals(g), strict=True)]
    return {
        **rows(found, "supported"),
        "activations_bytes": head,
        "persistent_bytes": tail,
        "arena_bytes": None if head is None or tail is None else head + tail,
        "arena_unknown": _unknown(graphs, head, tail),
        "flash_bytes": model_bytes,
        "resolver": RESOLVER,
    }


def _unknown(graphs: Sequence[GraphFacts], head: int | None, tail: int | None) -> str | None:
    if tail is None:
        return f"what the kernel of {', '.join(unknown_kernels(graphs))} keeps is not known"
    return "a tensor has a dimension without a fixed size" if head is None else None


def _known(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    known = (step.op in CUSTOM or step.op.startswith(SIGNAL)) if step.custom else step.op in OPERATORS
    return (
        None if known else OperatorRefusal(why=CortexMReason.OPERATOR, found=f"TensorFlow Lite Micro has no {step.op}")
    )


def _types(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    stored = [graph.values[i].dtype for i in (*step.inputs, *step.outputs) if graph.values[i].dtype in STORED]
    if stored:
        return OperatorRefusal(why=CortexMReason.DTYPE, found=f"its type is {stored[0]}, which no kernel takes")
    if step.op not in BYTES_TOO and any(value.dtype == "uint8" for value in graph.computed(step)):
        return OperatorRefusal(
            why=CortexMReason.DTYPE, found="its type is uint8, the older quantization; kernels compute in int8"
        )
    return None


def _float(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    other = [value.dtype for value in graph.computed(step) if value.dtype != "float32"]
    if step.op == "EXP" and other:  # the one operator that the converter quantizes and no kernel runs so
        return OperatorRefusal(why=CortexMReason.FLOAT, found=f"its type is {other[0]}; its kernel takes float32")
    return None


def _hybrid(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    if step.op not in WEIGHTED or len(step.inputs) < 2:
        return None
    data, weights = (graph.values[i].dtype for i in step.inputs[:2])
    if data == "float32" != weights:
        return OperatorRefusal(
            why=CortexMReason.DTYPE, found=f"it is float32 with {weights} weights; there are no hybrid kernels"
        )
    return None


def _sizes(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    free = any(value.free for value in graph.computed(step))
    return (
        OperatorRefusal(why=CortexMReason.DYNAMIC, found="a dimension other than the batch has no fixed size")
        if free
        else None
    )


def _inputs(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    if step.op == "CONCATENATION" and len(step.inputs) > CONCATENATION_LIMIT:
        found = f"it has {len(step.inputs)} inputs, more than {CONCATENATION_LIMIT}"
        return OperatorRefusal(why=CortexMReason.INPUTS, found=found)
    return None


RULES: tuple[Callable[[GraphFacts, Step], OperatorRefusal | None], ...] = (
    _known,
    _types,
    _float,
    _hybrid,
    _sizes,
    _inputs,
)
