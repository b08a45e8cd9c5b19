"""The structure of a .tflite, read without running it: operators, tensors, signatures.

Source: the schema inside ai-edge-litert, https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.extras import need

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
# custom operators that LiteRT's Python interpreter brings along
BUILTIN_CUSTOM = frozenset({"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify"})


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
    custom: bool = False


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


@lru_cache(maxsize=4)  # one conversion asks the same few files the same a dozen times: 3 of 35 CPU seconds
def read_tflite(data: bytes, name: str = "the model") -> Tflite:
    """Read a flatbuffer.

    Raises:
        ModelError: Another identifier, offsets out of range, positions that name no tensor.
    """
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(f"{name} is no .tflite file: its identifier is {data[4:8]!r}, expected b'TFL3'.")
    budget = _Budget(len(data))
    try:
        model = schema.Model.GetRootAs(data, 0)
        read = Tflite(
            graphs=tuple(_graph(schema, budget, model, model.Subgraphs(i)) for i in budget(model.SubgraphsLength())),
            signatures=tuple(_signature(budget, model.SignatureDefs(i)) for i in budget(model.SignatureDefsLength())),
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


class _Budget:
    """What may still be read. An honest file has fewer entries than bytes; a crafted one lets many vectors lie in the
    same place, and reading it would not end.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def __call__(self, count: int) -> range:
        self.left -= count
        if self.left < 0:
            raise ValueError("it claims more entries than it has bytes")
        return range(count)

    def text(self, value: bytes | None) -> str:
        self(len(value or b""))
        return (value or b"").decode("utf-8", "replace")


def _graph(schema: Any, budget: _Budget, model: Any, graph: Any) -> Graph:
    return Graph(
        name=budget.text(graph.Name()),
        tensors=tuple(_tensor(schema, budget, model, graph.Tensors(i)) for i in budget(graph.TensorsLength())),
        operators=tuple(_operator(schema, budget, model, graph.Operators(i)) for i in budget(graph.OperatorsLength())),
        inputs=tuple(int(graph.Inputs(i)) for i in budget(graph.InputsLength())),
        outputs=tuple(int(graph.Outputs(i)) for i in budget(graph.OutputsLength())),
    )


def _tensor(schema: Any, budget: _Budget, model: Any, tensor: Any) -> Tensor:
    signed = tensor.ShapeSignatureLength() or 0
    get = tensor.ShapeSignature if signed else tensor.Shape
    sizes = [int(get(i)) for i in budget(signed or tensor.ShapeLength())]
    quantization = tensor.Quantization()
    scales = quantization.ScaleLength() if quantization else 0
    zeros = quantization.ZeroPointLength() if scales else 0
    if tensor.Buffer() >= model.BuffersLength():
        raise ValueError(f"a tensor names the buffer {tensor.Buffer()} of {model.BuffersLength()}")
    budget(scales + zeros)
    buffer = model.Buffers(tensor.Buffer())
    return Tensor(
        name=budget.text(tensor.Name()),
        shape=tuple(None if size < 0 else size for size in sizes),
        dtype=_names(schema.TensorType).get(tensor.Type(), "unknown").lower(),
        # as a whole: one by one, 35,000 channels of MobileNetV2 took a second in which nothing else happened
        scale=tuple(quantization.ScaleAsNumpy().tolist()) if scales else (),
        zero_point=tuple(quantization.ZeroPointAsNumpy().tolist()) if zeros else (),
        # the quantizer puts the buffers of a larger file behind the flatbuffer: they have a size, and no data in it
        constant_bytes=(buffer.DataLength() or buffer.Size()) if buffer else 0,
    )


def _operator(schema: Any, budget: _Budget, model: Any, operator: Any) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names(schema.BuiltinOperator).get(number, f"UNKNOWN_{number}")
    custom = name == "CUSTOM"
    inputs = [int(operator.Inputs(i)) for i in budget(operator.InputsLength())]
    return Operator(
        name=budget.text(code.CustomCode()) if custom else name,
        inputs=tuple(i for i in inputs if i >= 0),
        outputs=tuple(int(operator.Outputs(i)) for i in budget(operator.OutputsLength())),
        custom=custom,
    )


def _signature(budget: _Budget, signature: Any) -> Signature:
    maps = [
        {budget.text(get(i).Name()): int(get(i).TensorIndex()) for i in budget(count())}
        for get, count in (
            (signature.Inputs, signature.InputsLength),
            (signature.Outputs, signature.OutputsLength),
        )
    ]
    return Signature(
        name=budget.text(signature.SignatureKey()),
        graph=int(signature.SubgraphIndex()),
        inputs=maps[0],
        outputs=maps[1],
    )


def _check(model: Tflite, name: str) -> None:
    for graph in model.graphs:
        named = {*graph.inputs, *graph.outputs, *(i for op in graph.operators for i in (*op.inputs, *op.outputs))}
        if any(not 0 <= i < len(graph.tensors) for i in named):
            raise ModelError(f"{name} is a damaged .tflite file: an operator names a tensor that is not there.")
    for signature in model.signatures:
        if not 0 <= signature.graph < len(model.graphs):
            raise ModelError(f"{name} is a damaged .tflite file: a signature names a graph that is not there.")
        positions = {*signature.inputs.values(), *signature.outputs.values()}
        if any(not 0 <= i < len(model.graphs[signature.graph].tensors) for i in positions):
            raise ModelError(f"{name} is a damaged .tflite file: a signature names a tensor that is not there.")


def _names(enum: Any) -> dict[int, str]:
    return {value: key for key, value in vars(enum).items() if isinstance(value, int)}
