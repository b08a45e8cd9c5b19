"""A .keras or Keras .h5 file in; its layers, ends and weights out. Nothing of it is built or run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.files.hdf5 import Hdf5File, read_hdf5
from edgeloop.files.keras_config import code_layers
from edgeloop.files.keras_shapes import output_shape
from edgeloop.files.mapped import mapped
from edgeloop.files.stored_zip import bounded_zip
from edgeloop.files.tensor_facts import tensor_facts
from edgeloop.files.weights import with_weights

CONFIG_LIMIT_BYTES = 64 << 20
WEIGHTS = "model.weights.h5"
LOCAL_HEADER_BYTES = 30


def read_keras(path: Path) -> dict[str, Any]:
    """What inspect shows of a .keras file.

    Raises:
        ValueError: Over a limit. KeyError, TypeError, zipfile.BadZipFile and others: damaged.
    """
    data = mapped(path)
    with bounded_zip(path) as archive:
        names = archive.namelist()
        config = _json(archive, "config.json")
        metadata = _json(archive, "metadata.json") if "metadata.json" in names else {}
        entry = archive.getinfo(WEIGHTS) if WEIGHTS in names else None
    stored = None
    if entry is not None and entry.compress_type == zipfile.ZIP_STORED:
        first = entry.header_offset + LOCAL_HEADER_BYTES
        lengths = data[first - 4 : first]
        first += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        stored = read_hdf5(data[first : first + entry.file_size])
    return {"format": "keras", **_model(config, metadata.get("keras_version")), **_weights(stored)}


def read_keras_hdf5(path: Path) -> dict[str, Any]:
    """What inspect shows of an .h5 file: a whole model, or weights alone, whose layers are the groups of the file.

    Raises:
        ValueError: As read_hdf5, or a configuration that is no JSON. struct.error: damaged.
    """
    found = read_hdf5(mapped(path))
    version = found.attributes.get("keras_version")
    if "model_config" in found.attributes:
        model = _model(json.loads(found.attributes["model_config"]), version)
    else:
        parts = [d.name.split("/") for d in found.datasets]
        inner = {part[:1] == ["layers"] for part in parts}  # Keras 3 puts all below layers/
        names = dict.fromkeys(part[True in inner] for part in parts if len(part) > (True in inner))
        layers = [{"name": name, "kind": None} for name in names if name not in ("vars", "optimizer", "_optimizer")]
        model = {"name": "", "keras_version": version, "signatures": {}, "layers": layers, "runs_code": []}
    whole = "keras-hdf5" if "model_config" in found.attributes else "hdf5-weights"
    return {"format": whole, **model, **_weights(found)}


def _model(config: Mapping[str, Any], version: Any) -> dict[str, Any]:
    found = list(_layers(config))
    return {
        "name": config["config"].get("name", ""),
        "keras_version": version,
        "signatures": {"": {"inputs": _inputs(config), "outputs": _outputs(config)}},
        "layers": [{"name": layer["config"].get("name", ""), "kind": layer["class_name"]} for layer in found],
        "runs_code": code_layers(config),
    }


def _weights(stored: Hdf5File | None) -> dict[str, Any]:
    if stored is None:
        return {"parameters": None, "weights": []}
    rows = [
        {"name": d.name.removeprefix("model_weights/"), "shape": list(d.shape), "dtype": d.dtype}
        for d in stored.datasets
        if d.dtype != "string"
    ]
    return with_weights(rows)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    entry = archive.getinfo(name)
    if entry.file_size > CONFIG_LIMIT_BYTES:
        raise ValueError(f"{name} of {entry.file_size} bytes")
    return json.loads(archive.read(entry))


def _layers(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The layers of a model and of the models nested in it, in order."""
    for layer in _own(config):
        if _own(layer):
            yield from _layers(layer)
        else:
            yield layer


def _own(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = config.get("config")
    found = inner if isinstance(inner, list) else inner.get("layers") if isinstance(inner, dict) else None
    return found if isinstance(found, list) else []


def _inputs(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model's own input layers, or what a Sequential was built with."""
    own = [layer["config"] for layer in _own(config) if layer["class_name"] == "InputLayer"]
    if not own and config["class_name"] == "Sequential":
        first = _own(config)[0]["config"] if _own(config) else {}
        shape = config.get("build_config", {}).get("input_shape", first.get("batch_input_shape"))
        own = [{"name": first.get("name", ""), "batch_shape": shape, "dtype": first.get("dtype")}] if shape else []
    return [
        tensor_facts(layer.get("name", ""), shape, _dtype(layer.get("dtype")))
        for layer in own
        if isinstance(shape := layer.get("batch_shape", layer.get("batch_input_shape")), list)
    ]


def _outputs(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By the names of the layers that make them; a shape is None where the file does not say it."""
    own = {layer["config"].get("name", ""): layer for layer in _own(config)}
    named = config["config"].get("output_layers") if isinstance(config["config"], dict) else None
    if config["class_name"] == "Sequential":
        names = list(own)[-1:]
    else:
        names = [end[0] for end in _ends(named) if end[0] in own]
    known: dict[str, list[Any] | None] = {}
    return [tensor_facts(n, output_shape(own, n, known), _dtype(own[n]["config"].get("dtype"))) for n in names]


def _ends(named: Any) -> list[list[Any]]:
    """[[layer, node, tensor], ...], which files write as a list, alone or as a dict's values."""
    if isinstance(named, dict):
        return [end for value in named.values() for end in _ends(value)]
    if not isinstance(named, list):
        return []
    return [named] if named and isinstance(named[0], str) else [end for each in named for end in _ends(each)]


def _dtype(named: Any) -> str:
    """A name, or a Keras 3 policy, whose computation decides."""
    name = named.get("config", {}).get("name", "") if isinstance(named, dict) else named or "float32"
    return str(name).removeprefix("mixed_")
