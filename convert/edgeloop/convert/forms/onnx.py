"""A frozen graph in, ONNX bytes out: the source's own names, the same bytes in every process."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.graph_nodes import CHANGE, without_erfc
from edgeloop.convert.forms.node_functions import write_buckets, write_one_hots
from edgeloop.convert.forms.node_substitutes import write_substitutes
from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite

OPSET = 18
LACKING = ("Expm1", "Log1p", "Xdivy", "Xlog1py", "Xlogy")


def to_onnx(frozen: FrozenGraph, source: Source) -> bytes:
    """An ONNX model whose inputs and outputs carry the source's names and free dimensions.

    Raises:
        ModelError: An op tf2onnx cannot express, or a result that onnx's own checker refuses.
    """
    ends = list(frozen.inputs), list(frozen.outputs)
    try:
        try:
            proto = _convert(frozen, ends, careful=False)
        except Exception:  # any of its dozen optimizers may stumble over a graph that converts without it
            proto = _convert(frozen, ends, careful=True)
    except Exception as e:  # tf2onnx raises ValueError, KeyError, RuntimeError and its own
        raise ModelError(f"it cannot be converted to ONNX: {one_line(e)}", advice=CHANGE, where=str(source.path)) from e
    return _finish(proto, dict(zip(ends[0] + ends[1], _names(source), strict=True)), source)


def tflite_to_onnx(data: bytes, source: Source) -> bytes:
    """As `to_onnx`, from the flatbuffer itself, whose tensors may come in another order than the signature's."""
    convert = need("tf2onnx.convert", extra="convert")
    _number_nodes(need("tf2onnx.graph", extra="convert").Node)
    model = read_tflite(data, str(source.path))
    signature = next(s for s in model.signatures if s.name == source.signature)
    tensors = model.graphs[signature.graph].tensors
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(data)
        try:
            proto, _ = convert._convert_common(None, tflite_path=str(file), opset=OPSET, name="model")
        except Exception as e:  # as above
            raise ModelError(
                f"it cannot be converted to ONNX: {one_line(e)}", advice=CHANGE, where=str(source.path)
            ) from e
    names = {tensors[i].name: name for name, i in signature.inputs.items()}
    _give_out(proto, {name: tensors[i].name for name, i in signature.outputs.items()}, names)
    return _finish(proto, names, source)


def _give_out(proto: Any, outputs: dict[str, str], names: dict[str, str]) -> None:
    """Make the graph's outputs those of the signature {output: tensor}; `names` {tensor: name} grows by them.

    A tensor that is an input, a constant or another output too is copied: an ONNX graph has one name for each.
    """
    onnx = need("onnx", extra="convert")
    held = {value.name: value for value in proto.graph.output}
    constants = {weight.name for weight in proto.graph.initializer}
    values: list[Any] = []
    for name, tensor in outputs.items():
        value = onnx.ValueInfoProto()
        value.CopyFrom(held[tensor])
        value.type.tensor_type.shape.SetInParent()  # a scalar has none yet
        if tensor in names or tensor in constants:
            value.name = f"{tensor}/copy_{len(values)}"
            proto.graph.node.append(onnx.helper.make_node("Identity", [tensor], [value.name], name=value.name))
        names[value.name] = name
        values.append(value)
    del proto.graph.output[:]
    proto.graph.output.extend(values)


def _convert(frozen: FrozenGraph, ends: tuple[list[str], list[str]], *, careful: bool) -> Any:
    """What tf2onnx.convert.from_graph_def does, without freezing a frozen graph again and, unless `careful`, with its
    optimizers as `_optimized` calls them. MobileNetV2: 3.4 CPU seconds, 0.7 this way.
    """
    tf = need("tensorflow", extra="convert")
    tf2onnx = need("tf2onnx", extra="convert")
    _number_nodes(tf2onnx.graph.Node)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(tf2onnx.tf_loader.tf_optimize(*ends, _for_onnx(frozen.graph)), name="")
        raw = tf2onnx.tfonnx.process_tf_graph(graph, opset=OPSET, input_names=ends[0], output_names=ends[1])
        made = tf2onnx.optimizer.optimize_graph(raw) if careful else _optimized(raw)
        return made.make_model("converted from model")


def _number_nodes(node_class: type) -> None:
    """Let sets of tf2onnx's nodes go by the order in which nodes first entered one, not by their addresses: its
    transpose optimizer wrote another file of a detector in every process."""
    numbers = itertools.count()

    def number(node: Any) -> int:
        if "edgeloop_number" not in vars(node):
            node.edgeloop_number = next(numbers)
        return node.edgeloop_number

    node_class.__hash__ = number  # type: ignore[assignment, method-assign]


def _optimized(graph: Any) -> Any:
    """A graph of tf2onnx after all its optimizers, again and again until none of them changes it.

    Its own loop copies the graph before each pass, and writes each node's protobuf after it, which only the finished
    model needs: what is written anew stays in memory, and a loop's body is written with its weights. An OCR net of
    54 MB with LSTMs: 8.8 CPU seconds and 5.5 GB, 4.4 and 2.8 this way.
    """
    optimizers = need("tf2onnx.optimizer", extra="convert")._get_optimizers()
    changed, iteration = True, 0
    while changed:
        changed = False
        for make in optimizers.values():
            optimizer = make()
            optimizer.opt_iteration = iteration
            graph = optimizer._optimize(graph)
            graph.delete_unused_nodes(graph.outputs)  # those of bodies too
            changed |= optimizer.graph_been_opt
        iteration += 1
    return graph


def _for_onnx(graph: Any) -> Any:
    """The graph with what ONNX lacks, or has with another meaning, in other operations."""
    made = without_erfc(graph)
    if any(node.op in ("Bucketize", "OneHot", *LACKING) for node in graph.node):
        made = type(graph).FromString(graph.SerializeToString()) if made is graph else made
        write_substitutes(made, LACKING)
        write_buckets(made)
        write_one_hots(made)
    return made


def _names(source: Source) -> list[str]:
    return [t.name for t in (*source.inputs, *source.outputs)]


def _bodies(graph: Any) -> list[Any]:
    """The bodies of its loops and branches."""
    return [part.g for node in graph.node for part in node.attribute if part.HasField("g")]


def _rename(graph: Any, stable: Callable[[str], str]) -> None:
    """Every name but the ends of the whole model; a body reads names from outside it."""
    for node in graph.node:
        node.input[:] = map(stable, node.input)
        node.output[:] = map(stable, node.output)
        node.name = stable(node.name)
        if not node.domain:
            node.ClearField("domain")  # empty and absent mean the same
        for body in (part.g for part in node.attribute if part.HasField("g")):
            body.name = stable(body.name)
            for value in (*body.input, *body.output, *body.value_info, *body.initializer):
                value.name = stable(value.name)
            for value in (*body.input, *body.output, *body.value_info):
                for size in value.type.tensor_type.shape.dim:
                    if size.dim_param:  # a free size by a name that tf2onnx counts
                        size.ClearField("dim_param")
            _rename(body, stable)


def _settle_copies(graph: Any) -> None:
    """Of a value and its copies (Identity) in a body, tf2onnx gives back one or the other, by the order of a set.

    Here nodes read the value itself, and the body's outputs name it before its copies.
    """
    for body in _bodies(graph):
        copies = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
        for node in body.node:
            node.input[:] = [copies.get(name, name) for name in node.input]
        for copy, value in copies.items():
            places = {output.name: i for i, output in enumerate(body.output)}
            if places.get(copy, -1) < places.get(value, -1) and copy in places:
                body.output[places[copy]].name, body.output[places[value]].name = value, copy
        _settle_copies(body)


def _finish(proto: Any, names: dict[str, str], source: Source) -> bytes:
    onnx = need("onnx", extra="convert")
    weights = {w.name: w for w in proto.graph.initializer}
    loops = bool(_bodies(proto.graph))
    _settle_copies(proto.graph)
    order: dict[str, str] = {}
    numbers: dict[str, str] = {}

    # tf2onnx counts names over the whole life of a process: count constants and made-up names by first use instead
    def stable(name: str) -> str:
        if name in weights:
            return order.setdefault(name, f"const_{len(order)}")
        if loops and name and name not in names:  # of equal nodes, tf2onnx keeps one or the other
            return numbers.setdefault(name, f"t_{len(numbers)}")
        renumbered = re.sub(r"__(\d+)", lambda m: "__" + numbers.setdefault(m[1], str(len(numbers))), name)
        return names.get(name, renumbered)

    _rename(proto.graph, stable)
    del proto.graph.initializer[:]
    for name, new in order.items():
        weights[name].name = new
        proto.graph.initializer.append(weights[name])
    specs = {spec.name: spec for spec in (*source.inputs, *source.outputs)}
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names[value.name]
        shape = specs[value.name].shape
        for i, (dimension, size) in enumerate(zip(value.type.tensor_type.shape.dim, shape, strict=False)):
            if size is None:
                dimension.dim_param = "batch" if i == 0 else f"{value.name}_{i}"
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as e:
        raise ModelError(
            f"its ONNX graph would be invalid: {one_line(e)}", advice=CHANGE, where=str(source.path)
        ) from e
    return proto.SerializeToString(deterministic=True)
