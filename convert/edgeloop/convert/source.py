"""A model file in, one uniform value out: what it is called with, what it answers, how to freeze it.

Nothing of a file runs before it has been looked at: a Lambda layer is Python code, and both Keras 3 (`safe_mode`) and
tf-keras run one while loading unless it is refused first.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.convert.tflite_source import add_signature, tflite_call, tflite_specs
from edgeloop.edge.keras_config import code_layers
from edgeloop.errors import ModelError
from edgeloop.extras import need

INFER = "infer"  # the signature of a model that has no name for it
UNPACKED_LIMIT_BYTES = 2 << 30
DTYPES = frozenset({"float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"})

Arrays = Mapping[str, np.ndarray]


class SourceKind(enum.StrEnum):
    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    TFLITE = "tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One signature of one model.

    Attributes:
        signature: Its name. "infer" for Keras models and for .tflite files without one.
        call: Runs the original: named arrays with the batch in, named arrays out.
        graph: Named tensors in, list of tensors in the order of `outputs` out, to be traced. None for a .tflite.
        model: The Keras model, where there is one.
        flatbuffer: The .tflite itself, with its signature, where that is the source.
    """

    path: Path
    kind: SourceKind
    sha256: str
    signature: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[[Arrays], dict[str, np.ndarray]]
    graph: Callable[..., list[Any]] | None = None
    model: Any = None
    flatbuffer: bytes | None = None


def open_source(path: str | Path, signature: str | None = None) -> Source:
    """Look at a .keras, .h5, .tflite or SavedModel folder, then load it.

    Raises:
        ModelError: Missing, empty, damaged, another format, hostile, stateful, or no such signature.
    """
    path = Path(path)
    source = OPENERS[identify(path)](path, signature)
    for spec in (*source.inputs, *source.outputs):
        if not spec.shape:
            raise ModelError(f"{path}: the tensor {spec.name!r} is a scalar. Each needs a batch dimension first.")
        if spec.dtype not in DTYPES:
            raise ModelError(
                f"{path}: the tensor {spec.name!r} is {spec.dtype}. Supported: {', '.join(sorted(DTYPES))}."
            )
    return source


def identify(path: Path) -> SourceKind:
    """What `path` holds, by its first bytes and not by its name; loads nothing.

    Raises:
        ModelError: None of the formats, with what was found instead.
    """
    expected = "Expected a .keras or .h5 file, a SavedModel folder, or a .tflite file."
    if not path.exists():
        raise ModelError(f"{path} does not exist. {expected}")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return SourceKind.SAVEDMODEL
        found = "an empty folder" if not any(path.iterdir()) else "a folder without saved_model.pb"
        raise ModelError(f"{path} is {found}. {expected}")
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"TFL3":
        return SourceKind.TFLITE
    if head[:4] == b"PK\x03\x04":
        _check_zip(path)
        return SourceKind.KERAS
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        _check_h5(path)
        return SourceKind.KERAS
    if not head:
        found = "an empty file"
    elif head.startswith(b"version https://git-lfs"):
        found = "a git-lfs pointer: fetch the file it stands for"
    else:
        found = "a text file" if head.isascii() and b"\0" not in head else "a file of another format"
    raise ModelError(f"{path} is {found}. {expected}")


def digest(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted relative names and file digests."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = [f for f in path.rglob("*") if f.is_file()]
    lines = sorted(f"{f.relative_to(path).as_posix()} {digest(f)}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def functional(model: Any) -> Any:
    """A Keras model as one with named ends: a Sequential becomes the functional model of its layers and weights."""
    keras = need("keras", extra="convert")
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return model


def identifiers(names: Sequence[str]) -> list[str]:
    """Names that every format takes: a TensorFlow signature wants Python identifiers."""
    clean = [re.sub(r"\W", "_", name) for name in names]
    clean = [name if name[:1].isidentifier() else f"_{name}" for name in clean]
    return [name if clean.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(clean)]


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > UNPACKED_LIMIT_BYTES:
                raise ModelError(f"{path} unpacks to {size} bytes, more than {UNPACKED_LIMIT_BYTES}. It is not loaded.")
            for entry in entries:
                if entry.filename.startswith("/") or ".." in Path(entry.filename).parts:
                    raise ModelError(f"{path} holds the path {entry.filename!r}, which leads out of it. It is refused.")
            if "config.json" not in archive.namelist():
                raise ModelError(f"{path} is a zip file without config.json. Expected a Keras 3 .keras file.")
            _refuse_code(path, json.loads(archive.read("config.json")))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as e:
        raise ModelError(f"{path} is a damaged .keras file ({e}). Save the model again.") from e


def _check_h5(path: Path) -> None:
    try:
        with need("h5py", extra="convert").File(path, "r") as file:
            config = file.attrs.get("model_config")
            if config is None:
                raise ModelError(f"{path} holds weights but no model. Save with model.save(), not save_weights().")
            _refuse_code(path, json.loads(config))
    except (OSError, ValueError) as e:
        raise ModelError(f"{path} is a damaged .h5 file ({e}). Save the model again.") from e


def _refuse_code(path: Path, config: Any) -> None:
    found = code_layers(config)
    if found:
        raise ModelError(
            f"{path} has the Lambda layer {found[0]!r}, which is Python code. Replace it with a real layer."
        )


def _keras(path: Path, signature: str | None) -> Source:
    if signature not in (None, INFER):
        raise ModelError(f"{path} is a Keras model: its only signature is {INFER!r}, not {signature!r}.")
    keras = need("keras", extra="convert")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as e:  # Keras raises many types here; each means the file cannot be loaded
        reason = " ".join(str(e).split())[:300]
        raise ModelError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason}") from e
    if not getattr(model, "inputs", None):
        raise ModelError(f"{path} is a subclassed model without declared inputs. Use model.export() and convert that.")
    if isinstance(model, keras.Sequential):
        model = keras.Model(
            model.inputs, model.outputs, name=model.name
        )  # the same layers and weights, with names for its ends
    return keras_source(path, model)


def keras_source(path: Path, model: Any) -> Source:
    """A loaded functional Keras 3 model as a `Source`. One output keeps its layer's name, as several do."""
    in_names = identifiers([t.name for t in model.inputs])
    out_names = identifiers(model.output_names)

    nest = need("tensorflow", extra="convert").nest

    def graph(**tensors: Any) -> list[Any]:
        packed = nest.pack_sequence_as(model.input, [tensors[name] for name in in_names])
        return nest.flatten(model(packed, training=False))

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(out_names, (np.asarray(v) for v in graph(**arrays)), strict=True))

    return Source(
        path=path,
        kind=SourceKind.KERAS,
        sha256=digest(path),
        signature=INFER,
        inputs=_specs(in_names, [(tuple(t.shape), str(t.dtype)) for t in model.inputs]),
        outputs=_specs(out_names, [(tuple(t.shape), str(t.dtype)) for t in model.outputs]),
        call=call,
        graph=graph,
        model=model,
    )


def _saved_model(path: Path, signature: str | None) -> Source:
    tf = need("tensorflow", extra="convert")
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as e:  # TensorFlow raises many types here; each means the folder cannot be loaded
        raise ModelError(f"{path} cannot be loaded as a SavedModel: {' '.join(str(e).split())[:300]}") from e
    names = [name for name in loaded.signatures if not name.startswith("__")]
    name = signature or ("serving_default" if "serving_default" in names else names[0] if names else "none")
    if name not in names:
        raise ModelError(f"{path} has no signature {name!r}. It has: {', '.join(names) or 'none'}.")
    function = loaded.signatures[name]
    specs_in, specs_out = function.structured_input_signature[1], function.structured_outputs
    in_names, out_names = list(specs_in), sorted(specs_out)

    def graph(**tensors: Any) -> list[Any]:
        out = function(**tensors)
        return [out[n] for n in out_names]

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        out = graph(**{n: tf.constant(arrays[n], specs_in[n].dtype) for n in in_names})
        return {n: np.asarray(v) for n, v in zip(out_names, out, strict=True)}

    def shapes(specs: Mapping[str, Any], order: Sequence[str]) -> list[tuple[tuple, str]]:
        for n in order:
            if specs[n].shape.rank is None:
                raise ModelError(f"{path}: tensor {n!r} has no rank. Export it with an input signature.")
        return [(tuple(specs[n].shape.as_list()), specs[n].dtype.name) for n in order]

    return Source(
        path=path,
        kind=SourceKind.SAVEDMODEL,
        sha256=digest(path),
        signature=name,
        inputs=_specs(in_names, shapes(specs_in, in_names)),
        outputs=_specs(out_names, shapes(specs_out, out_names)),
        call=call,
        graph=graph,
        model=loaded,  # keeps the variables alive
    )


def _tflite(path: Path, signature: str | None) -> Source:
    data = add_signature(path.read_bytes(), INFER, path)
    name, inputs, outputs = tflite_specs(data, signature, path)
    return Source(
        path=path,
        kind=SourceKind.TFLITE,
        sha256=digest(path),
        signature=name,
        inputs=_specs([n for n, _ in inputs], [s for _, s in inputs]),
        outputs=_specs([n for n, _ in outputs], [s for _, s in outputs]),
        call=tflite_call(data, name),
        flatbuffer=data,
    )


OPENERS: dict[SourceKind, Callable[[Path, str | None], Source]] = {
    SourceKind.KERAS: _keras,
    SourceKind.SAVEDMODEL: _saved_model,
    SourceKind.TFLITE: _tflite,
}


def _specs(names: Sequence[str], shapes: Sequence[tuple[tuple, str]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, tuple(shape), dtype, _kind(shape), layout="NHWC" if _kind(shape) is Kind.IMAGE else None)
        for name, (shape, dtype) in zip(names, shapes, strict=True)
    )


def _kind(shape: tuple) -> Kind:
    return Kind.IMAGE if len(shape) == 4 and shape[3] in (1, 3, 4) else Kind.OTHER
