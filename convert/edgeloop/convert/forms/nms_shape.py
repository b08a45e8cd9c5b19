"""A fused non-maximum suppression in a .tflite, with the axis that the TFLite converter loses.

`tf.image.non_max_suppression_padded` computes indices [1, n]. Fused into NON_MAX_SUPPRESSION_V4 they are [n], and
TensorFlow 2.21's converter leaves the declared shape at [1, n]: a runtime then gives [n] where [1, n] was said.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.extras import need

OPERATORS = ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")


def with_batch_axis(data: bytes) -> bytes:
    """The file with a RESHAPE from [n] to [1, n] after each non-maximum suppression that declares [1, n]."""
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    codes = {getattr(schema.BuiltinOperator, name) for name in OPERATORS}
    model = read_tree(data)
    fused = {i for i, code in enumerate(model.operatorCodes) if code.builtinCode in codes}
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators:
            operators.append(operator)
            if operator.opcodeIndex in fused:
                operators += _reshapes(schema, model, graph, operator)
        graph.operators = operators
    return write_tree(model)


def _reshapes(schema: Any, model: Any, graph: Any, operator: Any) -> list[Any]:
    made = []
    for place, index in enumerate(operator.outputs):
        tensor = graph.tensors[index]
        if tensor.shape is None or len(tensor.shape) != 2 or tensor.shape[0] != 1:
            continue
        flat = copy.copy(tensor)
        flat.name, flat.shape, flat.shapeSignature = tensor.name + b"/flat", tensor.shape[1:], None
        shape, buffer = schema.TensorT(), schema.BufferT()
        buffer.data = np.frombuffer(np.asarray(tensor.shape, np.int32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        shape.name, shape.shape, shape.type = tensor.name + b"/shape", np.array([2], np.int32), schema.TensorType.INT32
        shape.buffer = len(model.buffers) - 1
        graph.tensors += [flat, shape]
        reshape = schema.OperatorT()
        reshape.opcodeIndex = _reshape_code(schema, model)
        reshape.inputs = np.array([len(graph.tensors) - 2, len(graph.tensors) - 1], np.int32)
        reshape.outputs = np.array([index], np.int32)
        operator.outputs = np.array(operator.outputs, np.int32)
        operator.outputs[place] = len(graph.tensors) - 2
        made.append(reshape)
    return made


def _reshape_code(schema: Any, model: Any) -> int:
    reshape = schema.BuiltinOperator.RESHAPE
    for i, code in enumerate(model.operatorCodes):
        if code.builtinCode == reshape:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = reshape
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
