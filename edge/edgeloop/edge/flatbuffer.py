"""The structure of a .tflite, read without running it: operators, tensors, signatures.

Source: the schema inside ai-edge-litert, https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.extras import need

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """`shape` has None where a dimension is free; `scale` and `zero_point` hold one entry a channel, or none."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    constant_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """`inputs` and `outputs` are positions in the graph's `tensors`; an absent optional input is left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Names of a signature's tensors to their positions in its graph."""

    name: str
    graph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tflite:
    graphs: tuple[Graph, ...]
    signatures: tuple[Signature, ...]


def read_tflite(data: bytes, name: str = "the model") -> Tflite:
    """Read a flatbuffer.

    Raises:
        ModelError: Another identifier, offsets out of range, positions that name no tensor.
    """
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(f"{name} is no .tflite file: its identifier is {data[4:8]!r}, expected b'TFL3'.")
    try:
        model = schema.Model.GetRootAs(data, 0)
        read = Tflite(
            graphs=tuple(_graph(schema, model, model.Subgraphs(i)) for i in range(model.SubgraphsLength())),
            signatures=tuple(_signature(model.SignatureDefs(i)) for i in range(model.SignatureDefsLength())),
        )
    except Exception as e:  # flatbuffers raises struct, index, attribute and type errors on damaged offsets
        raise ModelError(
            f"{name} is a damaged .tflite file ({type(e).__name__}: {e}). Fetch or convert it again."
        ) from e
    _check(read, name)
    return read


def float_operators(data: bytes) -> list[str]:
    """Names of the operators that touch a float32 tensor, other than the conversions at the ends."""
    found = []
    for graph in read_tflite(data).graphs:
        for op in graph.operators:
            tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs)]
            if op.name not in CONVERSIONS and any(t.dtype in ("float32", "float16") for t in tensors):
                found.append(op.name)
    return found


def _graph(schema: Any, model: Any, graph: Any) -> Graph:
    return Graph(
        name=_text(graph.Name()),
        tensors=tuple(_tensor(schema, model, graph.Tensors(i)) for i in range(graph.TensorsLength())),
        operators=tuple(_operator(schema, model, graph.Operators(i)) for i in range(graph.OperatorsLength())),
        inputs=tuple(int(graph.Inputs(i)) for i in range(graph.InputsLength())),
        outputs=tuple(int(graph.Outputs(i)) for i in range(graph.OutputsLength())),
    )


def _tensor(schema: Any, model: Any, tensor: Any) -> Tensor:
    signed = tensor.ShapeSignatureLength() or 0
    sizes = [int((tensor.ShapeSignature if signed else tensor.Shape)(i)) for i in range(signed or tensor.ShapeLength())]
    quantization = tensor.Quantization()
    scales = quantization.ScaleLength() if quantization else 0
    buffer = model.Buffers(tensor.Buffer())
    return Tensor(
        name=_text(tensor.Name()),
        shape=tuple(None if size < 0 else size for size in sizes),
        dtype=_names(schema.TensorType).get(tensor.Type(), "unknown").lower(),
        scale=tuple(float(quantization.Scale(i)) for i in range(scales)),
        zero_point=tuple(
            int(quantization.ZeroPoint(i)) for i in range(quantization.ZeroPointLength() if scales else 0)
        ),
        constant_bytes=buffer.DataLength() if buffer else 0,
    )


def _operator(schema: Any, model: Any, operator: Any) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names(schema.BuiltinOperator).get(number, f"UNKNOWN_{number}")
    return Operator(
        name=_text(code.CustomCode()) if name == "CUSTOM" else name,
        inputs=tuple(i for i in map(int, map(operator.Inputs, range(operator.InputsLength()))) if i >= 0),
        outputs=tuple(int(operator.Outputs(i)) for i in range(operator.OutputsLength())),
    )


def _signature(signature: Any) -> Signature:
    maps = [
        {_text(get(i).Name()): int(get(i).TensorIndex()) for i in range(count())}
        for get, count in (
            (signature.Inputs, signature.InputsLength),
            (signature.Outputs, signature.OutputsLength),
        )
    ]
    return Signature(
        name=_text(signature.SignatureKey()), graph=int(signature.SubgraphIndex()), inputs=maps[0], outputs=maps[1]
    )


def _check(model: Tflite, name: str) -> None:
    for graph in model.graphs:
        named = {*graph.inputs, *graph.outputs, *(i for op in graph.operators for i in (*op.inputs, *op.outputs))}
        if any(not 0 <= i < len(graph.tensors) for i in named):
            raise ModelError(f"{name} is a damaged .tflite file: an operator names a tensor that is not there.")
    for signature in model.signatures:
        if not 0 <= signature.graph < len(model.graphs):
            raise ModelError(f"{name} is a damaged .tflite file: a signature names a graph that is not there.")


def _names(enum: Any) -> dict[int, str]:
    return {value: key for key, value in vars(enum).items() if isinstance(value, int)}


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
