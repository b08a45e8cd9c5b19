"""The structure of a .tflite, read without running it and without a framework: operators, tensors, signatures.

Source: https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs), of which schema.py holds what is read
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer_table import BUDGET_BYTES, TABLE_BYTES, FlatbufferTable
from edgeloop.files.schema import MODEL, OPERATORS, TENSOR_TYPES

AGAIN = "Fetch or convert it again."
CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
SIZES = frozenset({"SHAPE", "RANK"})  # they read no values
# custom operators that LiteRT's Python interpreter brings along
BUILTIN_CUSTOM = frozenset(
    {"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify"}
    | {"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"}  # MediaPipe's
)
# of one table: a position in a vector, and an offset to a vtable that others share. It bounds what an honest file holds
LEAST_TABLE_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """`shape` has None where a dimension is free, `sizes` what the file allots, as a rule 1; `scale` and
    `zero_point` hold one entry a channel, or none.

    `constant_at` is where a constant's `constant_bytes` begin in the file, 0 where they lie behind the flatbuffer.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    constant_bytes: int
    sizes: tuple[int, ...] = ()
    constant_at: int = field(default=0, compare=False)  # the same tensor may lie elsewhere
    variable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """`inputs` and `outputs` are positions in the graph's `tensors`; an absent optional input is left out.

    `options_at` is where the operator's own options begin in the file, 0 where it has none.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool = False
    options_at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteSignature:
    """Names of a signature's tensors to their positions in its graph."""

    name: str
    graph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    graphs: tuple[Graph, ...]
    signatures: tuple[TfliteSignature, ...]


@lru_cache(maxsize=4)  # one conversion asks the same few files the same a dozen times: 3 of 35 CPU seconds
def read_tflite(data: bytes, name: str = "the model") -> TfliteFile:
    """Read a flatbuffer.

    Raises:
        ModelError: Another identifier, offsets out of range, positions that name no tensor.
    """
    check_identifier(data, name)
    try:
        model = FlatbufferTable(data, MODEL, BUDGET_BYTES + len(data) * TABLE_BYTES // LEAST_TABLE_BYTES).root("Model")
        codes, buffers = model.get("operator_codes", ()), model.get("buffers", ())
        read = TfliteFile(
            graphs=tuple(_graph(graph, codes, buffers) for graph in model.get("subgraphs", ())),
            signatures=tuple(_signature(signature) for signature in model.get("signature_defs", ())),
        )
    except ValueError as e:
        raise ModelError(f"{name} is a damaged .tflite file ({e})", advice=AGAIN) from e
    _check(read, name)
    return read


def check_identifier(data: bytes, name: str) -> None:
    """See that a file says of itself that it is a .tflite.

    Raises:
        ModelError: It does not.
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(
            f"{name} is not a .tflite file: its identifier is {data[4:8]!r}, expected b'TFL3'", advice=AGAIN
        )


def float_operators(data: bytes) -> list[str]:
    """Names of the operators that compute with a float32 tensor, other than the conversions at the ends."""
    found = []
    for graph in read_tflite(data).graphs:
        for op in graph.operators:
            tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs)]
            if op.name not in CONVERSIONS | SIZES and any(t.dtype in ("float32", "float16") for t in tensors):
                found.append(op.name)
    return found


def _graph(graph: Mapping[str, Any], codes: Sequence[Mapping[str, Any]], buffers: Sequence[Mapping[str, Any]]) -> Graph:
    return Graph(
        name=graph.get("name", ""),
        tensors=tuple(_tensor(tensor, buffers) for tensor in graph.get("tensors", ())),
        operators=tuple(_operator(operator, codes) for operator in graph.get("operators", ())),
        inputs=graph.get("inputs", ()),
        outputs=graph.get("outputs", ()),
    )


def _tensor(tensor: Mapping[str, Any], buffers: Sequence[Mapping[str, Any]]) -> Tensor:
    index, kind = tensor.get("buffer", 0), tensor.get("type", 0)
    if index >= len(buffers):
        raise ValueError(f"a tensor names the buffer {index} of {len(buffers)}")
    start, size = buffers[index].get("data", (0, 0))
    quantization = tensor.get("quantization", {})
    scale = quantization.get("scale", ())
    return Tensor(
        name=tensor.get("name", ""),
        shape=tuple(None if d < 0 else d for d in tensor.get("shape_signature") or tensor.get("shape", ())),
        dtype=TENSOR_TYPES[kind] if 0 <= kind < len(TENSOR_TYPES) else "unknown",
        scale=scale,
        zero_point=quantization.get("zero_point", ()) if scale else (),
        # the quantizer puts the buffers of a larger file behind the flatbuffer: they have a size, and no data in it
        constant_bytes=size or buffers[index].get("size", 0),
        sizes=tensor.get("shape", ()),
        constant_at=start if size else 0,
        variable=bool(tensor.get("is_variable", 0)),
    )


def _operator(operator: Mapping[str, Any], codes: Sequence[Mapping[str, Any]]) -> Operator:
    index = operator.get("opcode_index", 0)
    if index >= len(codes):
        raise ValueError(f"an operator names the code {index} of {len(codes)}")
    # a file from before operator 127 has the first alone, a later one both, 127 standing for "look at the other"
    number = max(codes[index].get("builtin_code", 0), codes[index].get("deprecated_builtin_code", 0))
    name = OPERATORS[number] if 0 <= number < len(OPERATORS) else f"UNKNOWN_{number}"
    custom = name == "CUSTOM"
    return Operator(
        name=codes[index].get("custom_code", "") if custom else name,
        inputs=tuple(i for i in operator.get("inputs", ()) if i >= 0),
        outputs=operator.get("outputs", ()),
        custom=custom,
        options_at=operator.get("builtin_options", 0),
    )


def _signature(signature: Mapping[str, Any]) -> TfliteSignature:
    inputs, outputs = (
        {entry.get("name", ""): entry.get("tensor_index", 0) for entry in signature.get(side, ())}
        for side in ("inputs", "outputs")
    )
    return TfliteSignature(
        name=signature.get("signature_key", ""),
        graph=signature.get("subgraph_index", 0),
        inputs=inputs,
        outputs=outputs,
    )


def _check(model: TfliteFile, name: str) -> None:
    for graph in model.graphs:
        named = {*graph.inputs, *graph.outputs, *(i for op in graph.operators for i in (*op.inputs, *op.outputs))}
        if any(not 0 <= i < len(graph.tensors) for i in named):
            raise ModelError(
                f"{name} is a damaged .tflite file: an operator names a tensor that is not there", advice=AGAIN
            )
    for signature in model.signatures:
        if not 0 <= signature.graph < len(model.graphs):
            raise ModelError(
                f"{name} is a damaged .tflite file: a signature names a graph that is not there", advice=AGAIN
            )
        positions = {*signature.inputs.values(), *signature.outputs.values()}
        if any(not 0 <= i < len(model.graphs[signature.graph].tensors) for i in positions):
            raise ModelError(
                f"{name} is a damaged .tflite file: a signature names a tensor that is not there", advice=AGAIN
            )
