"""A small .tflite written operator by operator, without TensorFlow: float32 of one shape, [1, 4] unless told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

CODES = {"ADD": 0, "MUL": 18, "SUB": 41}
Operator = tuple[str, int, int, int]  # name, two inputs, output: positions of tensors


def tflite(
    *graphs: Sequence[Operator], shape: Sequence[int] = (1, 4), signatures: Mapping[str, int] | None = None
) -> bytes:
    """A model of these graphs. Inputs are what no operator makes, outputs what none takes, as `t0`, `t1`, ...

    `signatures` {name: graph}; without any the first graph is the model, under its tensors' own names.
    """
    names = sorted({operator[0] for graph in graphs for operator in graph})
    model = schema.ModelT()
    model.version, model.description = 3, "by hand"
    model.buffers = [schema.BufferT()]
    model.operatorCodes = [_code(name) for name in names]
    model.subgraphs = [_graph(operators, names, list(shape)) for operators in graphs]
    model.signatureDefs = [_signature(name, i, model.subgraphs[i]) for name, i in (signatures or {}).items()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(name: str) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = CODES[name]
    code.version = 1
    return code


def _graph(operators: Sequence[Operator], names: Sequence[str], shape: list[int]) -> schema.SubGraphT:
    graph = schema.SubGraphT()
    made, used = {op[3] for op in operators}, {tensor for op in operators for tensor in op[1:3]}
    graph.inputs, graph.outputs = sorted(used - made), sorted(made - used)
    graph.tensors = [_tensor(i, shape) for i in range(max(made | used) + 1)]
    graph.operators = []
    for name, left, right, out in operators:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = names.index(name), [left, right], [out]
        options = f"{name.capitalize()}Options"
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
        graph.operators.append(operator)
    return graph


def _tensor(index: int, shape: list[int]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = f"t{index}", shape, schema.TensorType.FLOAT32, 0
    return tensor


def _signature(name: str, index: int, graph: schema.SubGraphT) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = name, index
    signature.inputs, signature.outputs = [_named(i) for i in graph.inputs], [_named(i) for i in graph.outputs]
    return signature


def _named(index: int) -> schema.TensorMapT:
    tensor = schema.TensorMapT()
    tensor.name, tensor.tensorIndex = f"t{index}", index
    return tensor
