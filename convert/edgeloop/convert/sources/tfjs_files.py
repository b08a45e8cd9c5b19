"""model.json and its weight files, read without a framework: the topology, and every weight as an array.

Source: https://github.com/tensorflow/tfjs/blob/master/tfjs-core/src/io/types.ts (ModelJSON, WeightsManifestConfig,
WeightsManifestEntry) and io_utils.ts (decodeWeights)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeloop.convert.sources.identify import LIMIT_BYTES, TFJS_MODEL
from edgeloop.errors import ModelError
from edgeloop.files.keras_file import CONFIG_LIMIT_BYTES

WEIGHTS = "weightsManifest"
DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "int8": "i1", "bool": "?"}
STORED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}  # what a quantized weight may be stored as
UNTRUSTED = "Get the model from a source you trust."


def read_model(path: Path) -> dict[str, Any]:
    """The content of model.json; `path` is that file or the folder that holds it.

    Raises:
        ModelError: Over the limit.
        ValueError: No JSON of a TF.js model.
    """
    file = model_file(path)
    # also read where nothing limits memory, for the names of the weight files: an object takes 64 bytes, 3 in JSON
    if file.stat().st_size > CONFIG_LIMIT_BYTES:
        raise ModelError(f"{file} has {file.stat().st_size} bytes, the limit is {CONFIG_LIMIT_BYTES}", advice=UNTRUSTED)
    model = json.loads(file.read_bytes())
    if not isinstance(model, dict) or not isinstance(model.get("modelTopology"), dict):
        raise ValueError("it has no modelTopology")
    return model


def model_file(path: Path) -> Path:
    return path / TFJS_MODEL if path.is_dir() else path


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that a model keeps its weights in.

    Raises:
        ModelError: A path that is absolute, remote, or leads out of the model's folder; a file that is not there.
        ValueError: No JSON of a TF.js model.
    """
    groups = read_model(path).get(WEIGHTS) or []
    return tuple(_confined(model_file(path), name) for group in groups for name in group["paths"])


def read_weights(path: Path, model: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every weight by its name; quantized ones as the numbers that TF.js makes of them; strings as bytes.

    Raises:
        ModelError: As `weight_files`; weights over 2 GB.
        ValueError: A type or shape that cannot be, fewer or more bytes than the weights need, or a name twice.
    """
    found: dict[str, np.ndarray] = {}
    size = 0  # of all groups: several may name one file
    for group in model.get(WEIGHTS) or []:
        files = [_confined(model_file(path), name) for name in group["paths"]]
        size += sum(file.stat().st_size for file in files)
        if size > LIMIT_BYTES:
            raise ModelError(
                f"{path} holds weights of {size} bytes, the limit is {LIMIT_BYTES}", advice="Convert a smaller model."
            )
        data = b"".join(file.read_bytes() for file in files)
        at = 0
        for entry in group["weights"]:
            if entry["name"] in found:
                raise ValueError(f"it has two weights called {entry['name']!r}")
            found[entry["name"]], at = _weight(entry, data, at)
        if at != len(data):
            raise ValueError(f"its weight files hold {len(data)} bytes, its weights need {at}")
    return found


def nodes(topology: Any) -> Iterator[Mapping[str, Any]]:
    """Every object with an operation, wherever in a graph's topology it lies: protobuf JSON has two spellings."""
    waiting = [topology]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("op"), str):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _weight(entry: Mapping[str, Any], data: bytes, at: int) -> tuple[np.ndarray, int]:
    """One weight, and where the next one begins."""
    shape, kind = [int(n) for n in entry["shape"]], entry["dtype"]
    if any(n < 0 for n in shape):
        raise ValueError(f"the weight {entry['name']!r} has the shape {shape}")
    if kind == "string":
        return _strings(data, at, shape)
    quantization = entry.get("quantization")
    stored = STORED.get(quantization["dtype"]) if quantization else DTYPES.get(kind)
    if stored is None or kind not in DTYPES:
        what = f"{kind} stored as {quantization['dtype']}" if quantization else kind
        raise ValueError(f"the weight {entry['name']!r} is {what}")
    dtype, count = np.dtype(stored), math.prod(shape)
    end = at + count * dtype.itemsize
    if end > len(data):
        raise ValueError(f"the weight {entry['name']!r} of shape {shape} ends at byte {end} of {len(data)}")
    values = np.frombuffer(data, dtype, count, at).reshape(shape)
    if quantization and dtype.kind == "u":
        # in double precision, as JavaScript computes it
        values = values * float(quantization["scale"]) + float(quantization["min"])
        values = np.rint(values) if kind == "int32" else values
    return values.astype(DTYPES[kind], copy=False), end


def _strings(data: bytes, at: int, shape: list[int]) -> tuple[np.ndarray, int]:
    """Each with its length before it, 4 bytes."""
    found = []
    for _ in range(math.prod(shape)):
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4 + length
        if at > len(data):
            raise ValueError("a weight of strings ends beyond its file")
        found.append(data[at - length : at])
    return np.array(found, object).reshape(shape), at


def _confined(file: Path, name: Any) -> Path:
    """The weight file `name` beside model.json."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise ModelError(
            f"{file} keeps weights in {name!r}, and they must lie beside it",
            advice="Fetch the weight files into the model's folder, and name them so in weightsManifest.",
        )
    found = file.parent / name
    if not found.resolve().is_relative_to(file.parent.resolve()):
        raise ModelError(
            f"{found} is a link to a file outside the model",
            advice="Copy the folder with cp -rL, and convert the copy.",
        )
    if not found.is_file():
        raise ModelError(f"{file} keeps weights in {name!r}, which is not there", advice="Fetch it too.")
    return found
