"""A quantized .tflite whose quantizer mistook an output in, the same with the outputs of the float file out.

ai-edge-quantizer 0.10 puts the quantized copy of an output in its place where something else reads it too: where an
operator takes it in other steps, and where the output is an input, handed through. The signature is right then, or
points to a tensor that is no longer float.
"""

from __future__ import annotations

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.recipes import Io
from edgeloop.files.flatbuffer import read_tflite


def with_outputs(data: bytes, float32: bytes, io: Io) -> bytes:
    """`data`, quantized from `float32`, with the same outputs in the graph and in its signatures."""
    exact, made = read_tflite(float32).graphs[0], read_tflite(data)
    graph = made.graphs[0]
    to_float = {op.inputs[0]: op.outputs[0] for op in graph.operators if op.name == "DEQUANTIZE"}
    wanted = {}  # the quantizer keeps the indices of the float file, and adds its own behind them
    for index in exact.outputs:
        stored = graph.tensors[index].dtype != exact.tensors[index].dtype and io is Io.FLOAT32
        wanted[index] = to_float.get(index, index) if stored else index
    outputs = [wanted[index] for index in exact.outputs]
    if list(graph.outputs) == outputs:
        return data
    tree = read_tree(data)
    tree.subgraphs[0].outputs = outputs
    for signature in (s for s in tree.signatureDefs if s.subgraphIndex == 0):
        for entry in signature.outputs:
            entry.tensorIndex = wanted.get(entry.tensorIndex, entry.tensorIndex)
    return write_tree(tree)
