"""A frozen graph in, one that TF.js computes right out; and its written topology without the fusions TF.js refuses."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.graph_nodes import shapes_of, without_erfc
from edgeloop.convert.forms.node_functions import (
    write_as,
    write_bands,
    write_batched_gathers,
    write_buckets,
    write_one_hots,
)
from edgeloop.convert.forms.node_substitutes import write_rolls, write_substitutes
from edgeloop.convert.forms.tfjs_nodes import (
    is_training,
    needs_shapes,
    write_grouped_convolutions,
    write_norms,
    write_reversed_sequences,
)

Json = dict[str, Any]
LACKING = ("Rint", "Softsign", "Xdivy", "Xlog1py", "Xlogy")
REWRITTEN = frozenset({"OneHot", "MatrixBandPart", "Bucketize", "GatherV2", "Roll", *LACKING})
FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
FUSIBLE = frozenset({"Relu", "Relu6", "Prelu", "LeakyRelu", "Sigmoid", "Elu"})  # by TF.js's WebAssembly; no Tanh


def for_tfjs(frozen: FrozenGraph) -> Any:
    """The graph with what TF.js computes wrong (OneHot, MatrixBandPart, GatherV2, FusedBatchNorm in training) or
    lacks (LACKING, Erfc, Bucketize, Roll, groups of a convolution, ReverseSequence) in others.

    Its WebAssembly kernel of OneHot answers 1.4e-45 for 1, its MatrixBandPart, as in a causal mask, other elements.
    """
    graph = without_erfc(frozen.graph)
    swishes, sized = _hard_swishes(graph), needs_shapes(graph)
    if not swishes and not sized and not any(node.op in REWRITTEN or is_training(node) for node in graph.node):
        return graph
    if graph is frozen.graph:
        graph = type(graph).FromString(graph.SerializeToString())
    if sized:
        shapes = shapes_of(graph)
        write_grouped_convolutions(graph, shapes)
        write_reversed_sequences(graph, shapes)
    for node in [node for node in graph.node if node.name in swishes]:
        write_as(graph, node, _clip, [(node.input[0], node.attr["T"].type)])
    write_substitutes(graph, LACKING)
    write_norms(graph)
    for write in (write_one_hots, write_bands, write_buckets, write_rolls, write_batched_gathers):
        write(graph)
    return graph


def _hard_swishes(graph: Any) -> set[str]:
    """Names of the Relu6 nodes of x * relu6(x + 3) / 6, which Grappler fuses to a _FusedHardSwish: TF.js lacks that."""
    nodes = {node.name: node for node in graph.node}
    clips = [node for node in graph.node if node.op == "Relu6"]
    return {node.name for node in clips if nodes[node.input[0].split(":")[0]].op in ("Add", "AddV2")}


def _clip(tf: Any, x: Any) -> Any:
    """relu6(x) as clip(x, 0, 6), which is the same and which nothing is fused with."""
    return tf.raw_ops.ClipByValue(
        t=x, clip_value_min=tf.constant(0.0, x.dtype), clip_value_max=tf.constant(6.0, x.dtype)
    )


def unfuse_tensors(topology: Json) -> None:
    """Split fused convolutions and products whose "bias" is no vector of weights into the operations they came from.

    Grappler fuses any addition; TF.js fuses vectors only (a residual's other branch has the rank of the result). Its
    fused product of a transposed matrix is wrong beyond the first row (4.22, WebAssembly); its plain one is right.
    Activations that it does not fuse are split off too.
    """
    nodes: list[Json] = topology["node"]
    by_name = {node["name"]: node for node in nodes}
    split: list[Json] = []
    for node in nodes:
        fused = _fused_ops(node)
        kept = FUSIBLE.issuperset(fused[1:]) and not _is_transposed(node)
        if fused[:1] != ["BiasAdd"] or (kept and _is_vector(by_name, node["input"][2])):
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


def _is_transposed(node: Json) -> bool:
    return any(node.get("attr", {}).get(key, {}).get("b") for key in ("transpose_a", "transpose_b"))


def _is_vector(nodes: Mapping[str, Json], name: str) -> bool:
    found = nodes.get(name.split(":")[0], {})
    shape = found.get("attr", {}).get("value", {}).get("tensor", {}).get("tensorShape", {})
    return found.get("op") == "Const" and len(shape.get("dim", [])) == 1
