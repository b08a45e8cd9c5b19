"""A model file or bundle in, what it holds out. Never runs it, never loads a framework.

Sources of the field numbers: tensorflow/core/protobuf/{saved_model,meta_graph}.proto, onnx/onnx.proto.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeloop.bundle import is_bundle, read_bundle
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import Graph, read_tflite
from edgeloop.files.keras_config import code_layers
from edgeloop.files.protobuf import fields, messages, text, whole

HDF5 = b"\x89HDF\r\n\x1a\n"
CONFIG_LIMIT_BYTES = 64 << 20
# what readers raise on bytes that are not what they claim. OSError: an offset before the file. RuntimeError: nested too
# deeply; an encrypted zip, or one packed in an unknown way
DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, EOFError, OSError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
# DataType of tensorflow/core/framework/types.proto and of onnx.proto
TF_TYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 6: "int8", 7: "string", 9: "int64", 10: "bool"}
ONNX_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 8: "string", 9: "bool", 10: "float16"}


def inspect(path: str | Path) -> dict[str, Any]:
    """Read what a model file or a bundle holds.

    Returns `format`, `bytes`, `signatures` {name: {inputs, outputs: [{name, shape, dtype}]}} and `operators`
    {name: count}, of all graphs in the file. A .keras file has `layers` [{name, kind}] instead of operators, and its
    inputs alone; a bundle `variants`. In a shape, None is a free dimension; sizes are in bytes. The model is never run,
    and no framework is loaded.

    Raises:
        ModelError: None of the formats, or damaged.

    Example:
        >>> inspect("model.tflite")["operators"]
        {'CONV_2D': 2, 'MAX_POOL_2D': 2, 'FULLY_CONNECTED': 2, 'SOFTMAX': 1}
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path} does not exist", advice=EXPECTED)
    if is_bundle(path):
        return _bundle(path)
    if path.is_dir():
        return _read(path / "saved_model.pb", _saved_model, path)
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise ModelError(f"{path} is an empty file", advice=EXPECTED)
    if head == HDF5:
        raise ModelError(
            f"{path} is an HDF5 file, which only TensorFlow reads",
            advice="Save it as .keras, or run edgeloop convert and inspect the bundle.",
        )
    reader = _tflite if head[4:8] == b"TFL3" else _keras if head[:2] == b"PK" else READERS.get(path.suffix)
    if reader is None:
        raise ModelError(f"{path} is not a model file of a known format", advice=EXPECTED)
    return _read(path, reader, path)


def _read(file: Path, reader: Callable[[Path], dict[str, Any]], named: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{named} is a folder without {file.name}", advice=EXPECTED)
    try:
        found = reader(file)
    except DAMAGE as e:
        raise ModelError(f"{named} is damaged ({type(e).__name__}: {e})", advice="Save or fetch it again.") from e
    whole_size = (
        sum(f.stat().st_size for f in named.rglob("*") if f.is_file()) if named.is_dir() else file.stat().st_size
    )
    return {"file": str(named), "bytes": whole_size, **found}


def _tflite(path: Path) -> dict[str, Any]:
    model = read_tflite(path.read_bytes(), str(path))

    def ends(graph: Graph, tensors: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
        return [{"name": n, "shape": list(graph.tensors[i].shape), "dtype": graph.tensors[i].dtype} for n, i in tensors]

    signatures = {
        s.name: {
            "inputs": ends(model.graphs[s.graph], s.inputs.items()),
            "outputs": ends(model.graphs[s.graph], s.outputs.items()),
        }
        for s in model.signatures
    }
    if not signatures and model.graphs:
        graph = model.graphs[0]
        sides = [[(graph.tensors[i].name, i) for i in side] for side in (graph.inputs, graph.outputs)]
        signatures = {"": {"inputs": ends(graph, sides[0]), "outputs": ends(graph, sides[1])}}
    operators = Counter(op.name for graph in model.graphs for op in graph.operators)
    dtypes: Counter[str] = Counter()
    for graph in model.graphs:
        for tensor in graph.tensors:
            dtypes[tensor.dtype] += tensor.constant_bytes
    return {
        "format": "tflite",
        "signatures": signatures,
        "operators": dict(operators),
        "weight_bytes": {k: v for k, v in dtypes.items() if v},
    }


def _keras(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("config.json")
        if entry.file_size > CONFIG_LIMIT_BYTES:
            raise ValueError(f"config.json of {entry.file_size} bytes")
        config = json.loads(archive.read(entry))
        metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
    layers = [{"name": layer["config"].get("name", ""), "kind": layer["class_name"]} for layer in _layers(config)]
    return {
        "format": "keras",
        "name": config["config"].get("name", ""),
        "keras_version": metadata.get("keras_version"),
        "signatures": {"": {"inputs": _keras_inputs(config), "outputs": []}},
        "layers": layers,
        "runs_code": code_layers(config),
    }


def _keras_inputs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The model's own input layers; the outputs' shapes stand nowhere in the file."""
    own = config["config"].get("layers", [])
    found = [layer["config"] for layer in own if layer["class_name"] == "InputLayer"]
    return [
        {"name": layer.get("name", ""), "shape": list(layer["batch_shape"]), "dtype": str(layer.get("dtype", ""))}
        for layer in found
        if isinstance(layer.get("batch_shape"), list)
    ]


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a model and of the models nested in it, in order."""
    own = config.get("config", {})
    nested = own.get("layers", []) if isinstance(own, dict) else []
    return [leaf for layer in nested for leaf in (_layers(layer) or [layer])]


def _saved_model(path: Path) -> dict[str, Any]:
    graphs = messages(memoryview(path.read_bytes()), 2)
    if not graphs:
        raise ValueError("no MetaGraphDef")
    signatures = {}
    for entry in messages(graphs[0], 5):
        definition = messages(entry, 2)[-1]
        sides = [[_tf_tensor(item) for item in messages(definition, number)] for number in (1, 2)]
        signatures[text(entry, 1)] = {"inputs": sides[0], "outputs": sides[1]}
    operators: Counter[str] = Counter()
    for graph in messages(graphs[0], 2):
        operators.update(text(node, 2) for node in messages(graph, 1))
        for library in messages(graph, 2):
            operators.update(text(node, 2) for function in messages(library, 1) for node in messages(function, 3))
    signatures.pop("__saved_model_init_op", None)
    return {"format": "savedmodel", "signatures": signatures, "operators": dict(operators)}


def _tf_tensor(entry: memoryview) -> dict[str, Any]:
    info = messages(entry, 2)[-1]
    shapes = messages(info, 3)
    sizes = [whole(dim, 1) for dim in messages(shapes[-1], 2)] if shapes else []
    kind = whole(info, 2)
    return {
        "name": text(entry, 1),
        "shape": [None if d < 0 else d for d in sizes],
        "dtype": TF_TYPES.get(kind, f"type {kind}"),
    }


def _onnx(path: Path) -> dict[str, Any]:
    model = memoryview(path.read_bytes())
    graphs = messages(model, 7)
    if not graphs:
        raise ValueError("no graph")
    weights = {text(tensor, 8) for tensor in messages(graphs[-1], 5)}
    sides = [[_onnx_tensor(v) for v in messages(graphs[-1], n) if text(v, 1) not in weights] for n in (11, 12)]
    return {
        "format": "onnx",
        "opset": max((whole(entry, 2) for entry in messages(model, 8) if not text(entry, 1)), default=None),
        "signatures": {"": {"inputs": sides[0], "outputs": sides[1]}},
        "operators": dict(_onnx_operators(model, graphs[-1])),
    }


def _onnx_operators(model: memoryview, graph: memoryview) -> Counter[str]:
    """Of the graph, the graphs in its nodes (If, Loop, Scan) and the model's own functions."""
    found: Counter[str] = Counter()
    left = [*messages(graph, 1), *(node for function in messages(model, 25) for node in messages(function, 7))]
    while left:
        node = left.pop()
        found[text(node, 4)] += 1
        for attribute in messages(node, 5):
            left += [inner for n in (6, 11) for body in messages(attribute, n) for inner in messages(body, 1)]
    return found


def _onnx_tensor(value: memoryview) -> dict[str, Any]:
    kind, shape = 0, []
    for number, tensor in ((n, v) for t in messages(value, 2) for n, v in fields(t)):
        if number == 1 and isinstance(tensor, memoryview):
            kind = whole(tensor, 1)
            dims = [dim for part in messages(tensor, 2) for dim in messages(part, 1)]
            sizes = [whole(dim, 1) for dim in dims]  # 0 where the size is a name or unknown; exporters also write -1
            shape = [size if size > 0 else None for size in sizes]
    return {"name": text(value, 1), "shape": shape, "dtype": ONNX_TYPES.get(kind, f"type {kind}")}


def _bundle(path: Path) -> dict[str, Any]:
    bundle = read_bundle(path)
    manifest = bundle.manifest
    return {
        "file": str(path),
        "format": "bundle",
        "name": manifest.name,
        "version": manifest.version,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "source": dict(manifest.source),
        "signatures": {name: asdict(signature) for name, signature in manifest.signatures.items()},
        "variants": [asdict(variant) for variant in manifest.variants],
        "weights": len(manifest.weights),
        "toolchain": dict(manifest.toolchain),
    }


READERS = {".onnx": _onnx}
EXPECTED = "Expected a bundle, a .tflite, .keras or .onnx file, or a SavedModel folder."
