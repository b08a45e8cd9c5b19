"""A frozen graph in, one that TF.js computes right out; and its written topology without the fusions TF.js refuses."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.graph_nodes import become, data_inputs, without_erfc
from edgeloop.extras import need

Json = dict[str, Any]
FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}


def for_tfjs(frozen: FrozenGraph) -> Any:
    """The graph with what TF.js computes wrong or lacks (OneHot, MatrixBandPart, Erfc) in other operations."""
    graph = without_erfc(frozen.graph)
    swishes = _hard_swishes(graph)
    if not swishes and not any(node.op in REWRITTEN for node in graph.node):
        return graph
    if graph is frozen.graph:
        graph = type(graph).FromString(graph.SerializeToString())
    for node in [node for node in graph.node if node.name in swishes]:
        _clip(_Writer(graph, node), node)
    ranks = _ranks(graph)
    for node in [node for node in graph.node if node.op in REWRITTEN]:
        if node.input[0] in ranks:
            REWRITTEN[node.op](_Writer(graph, node), node, ranks[node.input[0]])
    return graph


def _hard_swishes(graph: Any) -> set[str]:
    """Names of the Relu6 nodes of x * relu6(x + 3) / 6, which Grappler fuses to a _FusedHardSwish: TF.js lacks that."""
    nodes = {node.name: node for node in graph.node}
    clips = [node for node in graph.node if node.op == "Relu6"]
    return {node.name for node in clips if nodes[node.input[0].split(":")[0]].op in ("Add", "AddV2")}


def _clip(write: _Writer, node: Any) -> None:
    """relu6(x) as clip(x, 0, 6), which is the same and which nothing is fused with."""
    limits = [write.number(part, value, node.attr["T"].type) for part, value in (("low", 0.0), ("high", 6.0))]
    become(node, "ClipByValue", [node.input[0], *limits], T=node.attr["T"].type)


def unfuse_tensors(topology: Json) -> None:
    """Split fused convolutions and products whose "bias" is no vector of weights into the operations they came from.

    Grappler fuses any addition; TF.js fuses vectors only (a residual's other branch has the rank of the result).
    """
    nodes: list[Json] = topology["node"]
    by_name = {node["name"]: node for node in nodes}
    split: list[Json] = []
    for node in nodes:
        fused = _fused_ops(node)
        if fused[:1] != ["BiasAdd"] or _is_vector(by_name, node["input"][2]):
            split.append(node)
            continue
        split += _unfused(node, fused)
    topology["node"] = split


def _unfused(node: Json, fused: list[str]) -> list[Json]:
    """`node` as its parts; the last one has its name."""
    attributes: Json = node.get("attr", {})
    kind, name, dtype = attributes["T"], node["name"], {"T": attributes["T"]}
    own = {key: value for key, value in attributes.items() if key not in ("fused_ops", "num_args", "epsilon")}
    parts = [{"name": f"{name}/product", "op": FUSED[node["op"]], "input": node["input"][:2], "attr": own}]
    parts.append({"name": f"{name}/sum", "op": "AddV2", "input": [parts[-1]["name"], node["input"][2]], "attr": dtype})
    for activation in fused[1:]:
        more = node["input"][3:] if activation == "Prelu" else []
        given = {"alpha": attributes["leakyrelu_alpha"]} if activation == "LeakyRelu" else {}
        parts.append(
            {
                "name": f"{name}/{activation}",
                "op": activation,
                "input": [parts[-1]["name"], *more],
                "attr": {"T": kind, **given},
            }
        )
    parts[-1]["name"] = name
    return parts


def _fused_ops(node: Json) -> list[str]:
    if node["op"] not in FUSED:
        return []
    words = node.get("attr", {}).get("fused_ops", {}).get("list", {}).get("s", [])
    return [base64.b64decode(word).decode() for word in words]


def _is_vector(nodes: Mapping[str, Json], name: str) -> bool:
    found = nodes.get(name.split(":")[0], {})
    shape = found.get("attr", {}).get("value", {}).get("tensor", {}).get("tensorShape", {})
    return found.get("op") == "Const" and len(shape.get("dim", [])) == 1


def _ranks(graph: Any) -> dict[str, int]:
    """Ranks of the tensors that rewritten nodes read first, by their name."""
    tf = need("tensorflow", extra="convert")
    wanted = {node.input[0] for node in graph.node if node.op in REWRITTEN}
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
        tensors = {name: imported.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in wanted}
    return {name: tensor.shape.rank for name, tensor in tensors.items() if tensor.shape.rank is not None}


class _Writer:
    """Adds nodes before a node, named after it."""

    def __init__(self, graph: Any, node: Any) -> None:
        tf = need("tensorflow", extra="convert")
        self.graph, self.own = graph, node.name
        self.frame = [name for name in node.input if name.startswith("^")]
        self.int32, self.proto = tf.int32.as_datatype_enum, tf.make_tensor_proto

    def add(self, part: str, op: str, *inputs: str, **types: int) -> str:
        made = self.graph.node.add(name=f"{self.own}/{part}", op=op, input=inputs)
        for key, value in types.items():
            made.attr[key].type = value
        return str(made.name)

    def whole(self, part: str, value: int | list[int]) -> str:
        """An int32 constant."""
        name = self.add(part, "Const", *self.frame, dtype=self.int32)
        self.graph.node[-1].attr["value"].tensor.CopyFrom(self.proto(value, self.int32))
        return name

    def number(self, part: str, value: float, kind: int) -> str:
        made = self.add(part, "Const", *self.frame, dtype=kind)
        self.graph.node[-1].attr["value"].tensor.CopyFrom(self.proto(value, kind))
        return made

    def as_int32(self, part: str, name: str, kind: int) -> str:
        return name if kind == self.int32 else self.add(part, "Cast", name, SrcT=kind, DstT=self.int32)

    def count(self, part: str, size: str, shape: list[int]) -> str:
        """0, 1, ... up to `size`, in this shape."""
        numbers = self.add(
            f"{part}/range", "Range", self.whole(f"{part}/0", 0), size, self.whole(f"{part}/1", 1), Tidx=self.int32
        )
        return self.add(part, "Reshape", numbers, self.whole(f"{part}/shape", shape), T=self.int32, Tshape=self.int32)


def _one_hot(write: _Writer, node: Any, rank: int) -> None:
    """where(indices == range(depth), on, off): TF.js's WebAssembly kernel of OneHot answers 1.4e-45 for 1."""
    indices, depth, on, off = data_inputs(node)
    axis = rank if node.attr["axis"].i == -1 else node.attr["axis"].i
    whole = write.as_int32("int32", indices, node.attr["TI"].type)
    column = write.add("column", "ExpandDims", whole, write.whole("axis", axis), T=write.int32, Tdim=write.int32)
    classes = write.count("classes", depth, [-1] + [1] * (rank - axis))
    equal = write.add("equal", "Equal", column, classes, T=write.int32)
    become(node, "SelectV2", [equal, on, off], T=node.attr["T"].type)


def _band_part(write: _Writer, node: Any, rank: int) -> None:
    """The elements of a matrix near its diagonal, the others 0: TF.js answers other elements. A causal mask is one."""
    matrix, *limits = data_inputs(node)
    kind, int32 = node.attr["T"].type, write.int32
    shape = write.add("shape", "Shape", matrix, T=kind, out_type=int32)

    def size(part: str, axis: int) -> str:
        return write.add(
            part, "GatherV2", shape, write.whole(f"{part}/at", axis), write.whole(f"{part}/axis", 0),
            Tparams=int32, Tindices=int32, Taxis=int32,
        )  # fmt: skip

    rows = write.count("rows", size("height", rank - 2), [-1, 1])
    columns = write.count("columns", size("width", rank - 1), [1, -1])
    below = write.add("below", "Sub", rows, columns, T=int32)
    above = write.add("above", "Sub", columns, rows, T=int32)
    bools = need("tensorflow", extra="convert").bool.as_datatype_enum
    sides = []
    for part, distance, limit in (("lower", below, limits[0]), ("upper", above, limits[1])):
        whole = write.as_int32(f"{part}/int32", limit, node.attr["Tindex"].type or int32)
        near = write.add(f"{part}/near", "LessEqual", distance, whole, T=int32)
        # a negative limit keeps all on this side
        free = write.add(f"{part}/all", "Less", whole, write.whole(f"{part}/0", 0), T=int32)
        sides.append(write.add(part, "LogicalOr", near, free))
    band = write.add("band", "LogicalAnd", *sides)
    if kind == bools:
        become(node, "LogicalAnd", [matrix, band])
        return
    zero = write.add("zeros", "ZerosLike", matrix, T=kind)
    become(node, "SelectV2", [band, matrix, zero], T=kind)


REWRITTEN = {"OneHot": _one_hot, "MatrixBandPart": _band_part}
