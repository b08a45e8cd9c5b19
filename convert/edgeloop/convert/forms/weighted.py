"""A float32 .tflite in, its operators with weights out, and the values that flow into them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.convert.samples import Samples
from edgeloop.extras import need

CONV, DEPTHWISE, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
SAMPLES = 32  # 64 moved the SNR of four schemes of three models by -0.6 to +0.6 dB, most by less than 0.3


@dataclass(frozen=True, slots=True)
class WeightedOperator:
    """An operator with its tensors: `input` and `output` by position, weights and bias as the schema's tensors.

    Attributes:
        options: The schema's Conv2DOptions or DepthwiseConv2DOptions; None for a dense layer.
    """

    kind: str
    input: int
    output: int
    weights: Any
    bias: Any
    options: Any

    @property
    def name(self) -> str:
        return str(self.weights.Name().decode())


def weighted(model: Any, graph: Any) -> Iterator[WeightedOperator]:
    """Operators with a constant weight and bias of their own: a shared one has no single input to correct for."""
    schema = need("ai_edge_litert.schema_py_generated", extra="convert")
    kinds = {getattr(schema.BuiltinOperator, kind): kind for kind in (CONV, DEPTHWISE, DENSE)}
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    shared = Counter(graph.Tensors(i).Buffer() for op in operators for i in op.InputsAsNumpy() if i >= 0)
    for op in operators:
        code = model.OperatorCodes(op.OpcodeIndex())
        kind = kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind is None or op.InputsLength() < 3 or op.Inputs(2) < 0:
            continue
        weights, bias = graph.Tensors(op.Inputs(1)), graph.Tensors(op.Inputs(2))
        if weights.Type() != schema.TensorType.FLOAT32:
            continue
        if all(shared[t.Buffer()] == 1 and constant(model, b"", t).size for t in (weights, bias)):
            options = {CONV: schema.Conv2DOptions, DEPTHWISE: schema.DepthwiseConv2DOptions}.get(kind)
            table = op.BuiltinOptions()
            if options is not None:
                options = options()
                options.Init(table.Bytes, table.Pos)
            yield WeightedOperator(kind, op.Inputs(0), op.Outputs(0), weights, bias, options)


def quantized_pairs(graph: Any) -> dict[bytes, tuple[Any, Any]]:
    """Weights and bias of a quantized file's operators, by the weights' name, where no other operator has that bias.

    TFLiteConverter's quantizer gives biases the names of one another: only the operator tells whose they are.
    """
    found = [
        (graph.Tensors(op.Inputs(1)), graph.Tensors(op.Inputs(2)))
        for op in map(graph.Operators, range(graph.OperatorsLength()))
        if op.InputsLength() > 2 and op.Inputs(1) >= 0 and op.Inputs(2) >= 0
    ]
    readers = Counter(bias.Buffer() for _, bias in found)
    return {weights.Name(): (weights, bias) for weights, bias in found if readers[bias.Buffer()] == 1}


def same_shape(one: Any, other: Any) -> bool:
    """Of two tensors of the schema; a scalar's is no array."""
    return np.ravel(one.ShapeAsNumpy()).tolist() == np.ravel(other.ShapeAsNumpy()).tolist()


def inputs_of(
    float32: bytes, tensors: set[int], signature: str, samples: Samples, size: int, *, fill: bool = False
) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
    """Run up to 32 samples spread over all of them, `size` at a time: (how many, value by tensor) of each batch."""
    interpreter = need("ai_edge_litert.interpreter", extra="convert")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that this keeps every activation, which is what we want
        run = interpreter.Interpreter(model_content=float32, num_threads=1, experimental_preserve_all_tensors=True)
    call = run.get_signature_runner(signature)
    for batch in samples.spread(SAMPLES).batches(size, fill=fill):
        call(**batch)
        yield 1 if samples.whole else len(next(iter(batch.values()))), {i: run.get_tensor(i) for i in tensors}


def read(data: bytes | bytearray) -> tuple[Any, Any]:
    """The schema's model and its first graph."""
    model = need("ai_edge_litert.schema_py_generated", extra="convert").Model.GetRootAs(data, 0)
    return model, model.Subgraphs(0)


def constant(model: Any, data: bytes | bytearray, tensor: Any) -> np.ndarray:
    """A tensor's bytes in place, inside the flatbuffer or behind it."""
    buffer = model.Buffers(tensor.Buffer())
    if buffer.DataLength():
        return np.asarray(buffer.DataAsNumpy())
    return np.frombuffer(data, np.uint8, count=buffer.Size(), offset=buffer.Offset())


def floats(model: Any, data: bytes, tensor: Any) -> np.ndarray:
    """A float32 constant in its shape."""
    return constant(model, data, tensor).view(np.float32).reshape(tensor.ShapeAsNumpy())
