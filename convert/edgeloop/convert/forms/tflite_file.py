"""What a .tflite file holds, read from its bytes: its true scheme, and what its ends take and give."""

from __future__ import annotations

from edgeloop.bundle import Quantization, Scheme
from edgeloop.files.flatbuffer import CONVERSIONS, float_operators, read_tflite

QUANTIZED = frozenset({"int2", "int4", "int8", "uint8", "int16"})
CARRIERS = frozenset({"GATHER", "EMBEDDING_LOOKUP"})  # they hand on values of a table as they are stored
STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})


def stored_scheme(data: bytes) -> Scheme:
    """What a flatbuffer's constants and operators say it is, whatever its name."""
    tensors = [t for graph in read_tflite(data).graphs for t in graph.tensors]
    constants = {t.dtype for t in tensors if t.constant_bytes and t.dtype != "int32"}
    if not float_operators(data):
        if not {t.dtype for t in tensors} & QUANTIZED:  # it computes with whole numbers, and none stands for a real one
            return Scheme.FLOAT32
        activations = {t.dtype for t in tensors if not t.constant_bytes}
        return Scheme.INT16X8 if "int16" in activations else Scheme.INT8
    if _computes_in_integers(data):
        return Scheme.MIXED
    if "float16" in constants:
        return Scheme.FLOAT16
    if "int4" in constants:
        return Scheme.INT4
    return Scheme.DYNAMIC if constants & {"int8", "uint8"} else Scheme.FLOAT32


def _computes_in_integers(data: bytes) -> bool:
    """Whether any operator does: its result has a scale."""
    return any(
        graph.tensors[i].dtype in ("int8", "int16") and graph.tensors[i].scale
        for graph in read_tflite(data).graphs
        for op in graph.operators
        if op.name not in CONVERSIONS | CARRIERS
        for i in op.outputs
    )


def float32_share(data: bytes) -> float:
    """Of the bytes of all constants, those that float32 ones take: 0 to 1; 0 where there are none."""
    tensors = [t for graph in read_tflite(data).graphs for t in graph.tensors if t.constant_bytes]
    whole = sum(t.constant_bytes for t in tensors)
    return sum(t.constant_bytes for t in tensors if t.dtype == "float32") / max(1, whole)


def is_kept_unchanged(data: bytes) -> bool:
    """Whether a .tflite can only be taken as it is: its weights are no longer float32, or it keeps state."""
    operators = {op.name for graph in read_tflite(data).graphs for op in graph.operators}
    return stored_scheme(data) is not Scheme.FLOAT32 or bool(operators & STATE)


def stored_io(data: bytes) -> dict[str, Quantization]:
    """What the tensors at the ends of every signature hold."""
    model = read_tflite(data)
    named = [(s.graph, item) for s in model.signatures for item in (*s.inputs.items(), *s.outputs.items())]
    tensors = {name: model.graphs[graph].tensors[index] for graph, (name, index) in named}
    return {
        name: Quantization(t.dtype, t.scale[0] if t.scale else 0.0, t.zero_point[0] if t.zero_point else 0)
        for name, t in tensors.items()
    }
