"""The mean over all positions as GlobalAveragePool, which has an int8 kernel where ReduceMean has none."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.forms.onnx_graph import OnnxGraph
from edgeloop.extras import need

# axes of the mean: the order of dimensions that puts the channels before them
PLANES = {
    (1,): (0, 2, 1),
    (1, 2): (0, 3, 1, 2),
    (2, 3): (0, 1, 2, 3),
    (1, 2, 3): (0, 4, 1, 2, 3),
    (2, 3, 4): (0, 1, 2, 3, 4),
}
NORMALIZES = frozenset({"Sub", "Neg", "Add", "Sqrt"})  # what is done with a mean, or a variance, to normalize by it


def means_as_pools(data: bytes) -> bytes:
    """Every ReduceMean over the positions of a sequence, an image or a video, but for those of a normalization."""
    onnx = need("onnx", extra="convert")
    graph = OnnxGraph(onnx.load_from_string(data))
    constants = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in graph.constants.items()}
    make, nodes = onnx.helper.make_node, []
    for node in graph.model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        axes = constants.get(node.input[1]) if len(node.input) > 1 else given.get("axes")
        order = PLANES.get(tuple(sorted(axes))) if node.op_type == "ReduceMean" and axes is not None else None
        if order is None or graph.ranks.get(node.input[0]) != len(order) or _normalizes(graph, node):
            nodes.append(node)
            continue
        planes, means = f"{node.output[0]}_planes", f"{node.output[0]}_means"
        nodes.append(make("Transpose", [node.input[0]], [planes], name=f"{node.name}_planes", perm=order))
        nodes.append(make("GlobalAveragePool", [planes], [means], name=node.name))
        if given.get("keepdims", 1):
            back = [order.index(axis) for axis in range(len(order))]
            nodes.append(make("Transpose", [means], [node.output[0]], name=f"{node.name}_back", perm=back))
        else:
            nodes.append(make("Flatten", [means], [node.output[0]], name=f"{node.name}_flat", axis=1))
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(nodes)
    return bytes(graph.model.SerializeToString(deterministic=True))


def _normalizes(graph: OnnxGraph, node: Any) -> bool:
    return any(reader.op_type in NORMALIZES for reader in graph.read_by.get(node.output[0], []))
