"""A model file or bundle in, what it holds out. Never runs it, never loads a framework.

One module reads each format; a .tflite is read here.
"""

from __future__ import annotations

import math
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
from edgeloop.files.hdf5 import SIGNATURE
from edgeloop.files.keras_file import read_keras, read_keras_hdf5
from edgeloop.files.metadata import Metadata, read_metadata
from edgeloop.files.onnx_file import read_onnx
from edgeloop.files.saved_model_file import read_saved_model
from edgeloop.files.stored_zip import packed_names
from edgeloop.files.tensor_facts import tensor_facts

# what readers raise on bytes that are not what they claim. OSError: an offset before the file. RuntimeError: nested too
# deeply; an encrypted zip, or one packed in an unknown way
DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, EOFError, OSError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def inspect(path: str | Path) -> dict[str, Any]:
    """Read what a model file or a bundle holds.

    Returns `format`, `bytes`, `signatures` {name: {inputs, outputs: [{name, shape, dtype}]}}, `operators` {name: count}
    of all graphs in the file, `parameters`, how many numbers the weights hold, and `weights` [{name, shape, dtype}]. A
    Keras file has `layers` [{name, kind}] instead of operators, a bundle `variants`, a .tflite its `metadata` and the
    bytes of its weights by dtype. In a shape, None is a free size, and the file's word for it (-1, a name) stands in
    `dims`; a shape of None is one that the file does not say; sizes are in bytes. The model is never run, and no
    framework is loaded.

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
        return _read(path / "saved_model.pb", read_saved_model, path)
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise ModelError(f"{path} is an empty file", advice=EXPECTED)
    zipped = read_keras if head[:2] == b"PK" else READERS.get(path.suffix)
    reader = _tflite if head[4:8] == b"TFL3" else read_keras_hdf5 if head == SIGNATURE else zipped
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
    data = path.read_bytes()
    model = read_tflite(data, str(path))

    def ends(graph: Graph, tensors: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
        found = ((n, graph.tensors[i]) for n, i in tensors)
        return [tensor_facts(n, [-1 if d is None else d for d in t.shape], t.dtype) for n, t in found]

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
    constants = [t for graph in model.graphs for t in graph.tensors if t.constant_bytes]
    dtypes: Counter[str] = Counter()
    for tensor in constants:
        dtypes[tensor.dtype] += tensor.constant_bytes
    return {
        "format": "tflite",
        "signatures": signatures,
        "operators": dict(operators),
        "graphs": [{"name": g.name, "operators": len(g.operators)} for g in model.graphs],
        **_metadata(data),
        "parameters": sum(math.prod(t.sizes) for t in constants),
        "weight_bytes": dict(dtypes),
        "weights": [{"name": t.name, "shape": list(t.sizes), "dtype": t.dtype} for t in constants],
    }


def _metadata(data: bytes) -> dict[str, Any]:
    """What the file says of itself; `metadata_damaged` says why it could not be read: the model runs without it."""
    try:
        found = read_metadata(data)
        files = packed_names(data)
    except (ModelError, ValueError) as e:
        return {"metadata": None, "metadata_damaged": str(e)}
    if found is None and not files:
        return {"metadata": None}
    return {"metadata": {**asdict(found or Metadata(name="")), "files": files}}


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
        "toolchain": dict(manifest.toolchain),
        "parameters": sum(math.prod(weight.shape) for weight in manifest.weights),
        "weights": [asdict(weight) for weight in manifest.weights],
    }


READERS = {".onnx": read_onnx}
EXPECTED = "Expected a bundle, a .tflite, .keras, .h5 or .onnx file, or a SavedModel folder."
