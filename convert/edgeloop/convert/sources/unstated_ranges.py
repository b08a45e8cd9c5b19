"""Which inputs of a graph's operators with weights have no range that the model learned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

WEIGHTED = frozenset(
    {
        *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"),
        *("Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "Conv3D", "Conv3DBackpropInputV2"),
    }
)
# what they make lies in the range of what they take, and int8 gives both one scale
MOVERS = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "ExpandDims", "Pad", "PadV2", "MirrorPad", "ConcatV2", "Pack"),
        *("MaxPool", "AvgPool", "SpaceToBatchND", "BatchToSpaceND", "SpaceToDepth", "DepthToSpace"),
        *("Slice", "StridedSlice", "Split", "SplitV", "Unpack", "GatherV2", "Tile"),
        *("ResizeNearestNeighbor", "ResizeBilinear"),
    }
)


def unstated_inputs(graph_def: Any, stated: Collection[str]) -> tuple[int, int]:
    """How many computed inputs of operators with weights have no range among those of the nodes `stated`, of how many.

    Args:
        graph_def: A frozen GraphDef. In its functions no range is known.
    """
    by_name = {node.name: node for node in graph_def.node}
    computed = _computed(graph_def.node)
    inputs = {name for node in graph_def.node if node.op in WEIGHTED for name in _inputs(node) if name in computed}
    inner = sum(node.op in WEIGHTED for function in graph_def.library.function for node in function.node_def)
    unstated = sum(not _is_stated(name, by_name, computed, stated) for name in inputs)
    return unstated + inner, len(inputs) + inner


def _is_stated(name: str, by_name: Mapping[str, Any], computed: Collection[str], stated: Collection[str]) -> bool:
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in stated or name in seen:
            continue
        if by_name[name].op not in MOVERS:
            return False
        seen.add(name)
        waiting += [before for before in _inputs(by_name[name]) if before in computed]
    return True


def _computed(nodes: Iterable[Any]) -> set[str]:
    """The names of what depends on an input of the model."""
    readers: dict[str, list[str]] = defaultdict(list)
    found: set[str] = set()
    waiting: list[str] = []
    for node in nodes:
        for name in _inputs(node):
            readers[name].append(node.name)
        if node.op == "Placeholder":
            waiting.append(node.name)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += readers[name]
    return found


def _inputs(node: Any) -> list[str]:
    return [name.split(":")[0] for name in node.input if not name.startswith("^")]
