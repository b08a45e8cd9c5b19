"""A graph in; which operators TensorFlow Lite Micro has, and the arena, flash and RAM they need, out.

Sources
    operators  the resolver with all of them, https://github.com/tensorflow/tflite-micro
               (python/tflite_micro/python_ops_resolver.cc), each one tried on PyPI's tflite-micro 0.dev20261023182759
    types      what its kernels' Prepare refuses, seen with that package on the models of docs/targets.md
    arena      arena.py for the head; the tail is fitted, below
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.files.arena import arena_bytes, run_with
from edgeloop.files.graph_facts import GraphFacts, Step
from edgeloop.files.targets.operator_refusal import OperatorRefusal, rows

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
# The tail of the arena (persistent structures), fitted on every other one of 70 models that the package above loads, in
# 64 bits: off by at most 7%, half of the time by 1%, on the others. A 32-bit core needs less.
TAIL_BYTES, TENSOR_BYTES, OPERATOR_BYTES, CHANNEL_BYTES, END_BYTES = 500, 58, 74, 8, 110
# Of the graphs that IF and WHILE call, fitted on 12 models: off by at most 20%, half of the time by 8%
CALLED_TENSOR_BYTES, CALLED_OPERATOR_BYTES = 61, 43


class CortexMReason(enum.Enum):
    """Why an operator is not supported; the value is what to do about it."""

    OPERATOR = "Replace the operator, or write a kernel and add it to the resolver."
    DTYPE = "Quantize the model to full int8."
    DYNAMIC = "Give every dimension but the batch a fixed size."
    INPUTS = "Concatenate them in two steps."


def refusals(graph: GraphFacts) -> tuple[OperatorRefusal | None, ...]:
    """For each operator None, or why TensorFlow Lite Micro cannot run it."""
    return tuple(next((found for rule in RULES if (found := rule(graph, step))), None) for step in graph.steps)


def tail_bytes(graph: GraphFacts, called: Sequence[GraphFacts] = ()) -> int:
    """Estimated size of what the interpreter keeps beside the activations; `called` are the file's other graphs."""
    ends = len(graph.inputs) + len(graph.outputs)
    return (
        TAIL_BYTES
        + TENSOR_BYTES * len(graph.values)
        + OPERATOR_BYTES * len(graph.steps)
        + CHANNEL_BYTES * sum(_channels(graph, step) for step in graph.steps)
        + END_BYTES * ends
        + sum(CALLED_TENSOR_BYTES * len(g.values) + CALLED_OPERATOR_BYTES * len(g.steps) for g in called)
    )


def report(graphs: Sequence[GraphFacts], model_bytes: int) -> dict[str, Any]:
    """What `--json` prints of a file: its first graph, which runs, and those that its control flow calls.
    `arena_bytes` is None where a tensor has no fixed size, and `arena_unknown` says which.

    Raises:
        ValueError: A graph calls itself, or one that the file does not have.
    """
    first, *called = run_with(graphs)
    head, tail = arena_bytes(first, first.steps, graphs), tail_bytes(first, called)
    found = [pair for g in (first, *called) for pair in zip(g.steps, refusals(g), strict=True)]
    return {
        **rows(found, "supported"),
        "activations_bytes": head,
        "persistent_bytes": tail,
        "arena_bytes": None if head is None else head + tail,
        "arena_unknown": "a tensor has a dimension without a fixed size" if head is None else None,
        "flash_bytes": model_bytes,
        "resolver": RESOLVER,
    }


def _channels(graph: GraphFacts, step: Step) -> int:
    """For how many channels a kernel keeps a multiplier and a shift."""
    if step.op not in WEIGHTED or len(step.inputs) < 2:
        return 0
    weights = graph.values[step.inputs[1]]
    if step.op == "FULLY_CONNECTED" and weights.scales < 2:
        return 0
    return (weights.shape[-1] if step.op == "DEPTHWISE_CONV_2D" else weights.shape[0]) if weights.shape else 0


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


RULES: tuple[Callable[[GraphFacts, Step], OperatorRefusal | None], ...] = (_known, _types, _hybrid, _sizes, _inputs)
