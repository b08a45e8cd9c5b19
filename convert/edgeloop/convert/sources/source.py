"""A model file in, one uniform value out: what it is called with, what it answers, how to freeze it.

Nothing of a file runs before `safety.check` has looked at it: a Lambda layer is Python code, a SavedModel may write
files, and both would while being loaded or called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.sources.identify import LIMIT_BYTES, SourceKind, identify, source_digest
from edgeloop.convert.sources.keras_source import functional, keras_source, open_keras
from edgeloop.convert.sources.names import LOOKUP, identifiers
from edgeloop.convert.sources.onnx_sizes import InputSettings
from edgeloop.convert.sources.safety import check_safety
from edgeloop.convert.sources.saved_model_source import open_saved_model
from edgeloop.convert.sources.source_value import INFER, Arrays, Call, Source
from edgeloop.convert.sources.tfjs_source import open_tfjs
from edgeloop.convert.sources.tflite_source import open_tflite
from edgeloop.errors import ModelError, OptionsError, one_line

NO_SETTINGS = InputSettings()
DTYPES = frozenset({"float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"})


def open_source(
    path: str | Path,
    signature: str | None = None,
    *,
    allow_unsafe: bool = False,
    settings: InputSettings = NO_SETTINGS,
) -> Source:
    """Look at a .keras, .h5, .onnx, .tflite, SavedModel folder or TF.js model, then load it.

    Args:
        settings: Of an .onnx, whose shapes decide what of it is constant; fixed inputs are for it alone.
        allow_unsafe: Load it even though it runs code or touches files; `notes` of the result say what was allowed.

    Raises:
        ModelError: Missing, empty, damaged, another format, hostile, stateful, over a limit, or no such signature.
        MissingExtra: A package that this format needs is not there.
        OptionsError: Fixed inputs for another format, or settings that do not fit the .onnx.
    """
    path = Path(path)
    kind = identify(path)
    notes = check_safety(path, kind, allow_unsafe)
    if kind is SourceKind.ONNX:
        source = _open_onnx(path, signature, settings)
    elif settings.fixed:
        raise OptionsError("--fix applies to .onnx files", advice="Export the model with that input as a constant.")
    else:
        source = OPENERS[kind](path, signature, allow_unsafe)
    for spec in (*source.inputs, *source.outputs):
        _check_tensor(path, spec)
    source = _renamed(source)
    return replace(source, call=_guarded(path, source.call), notes=(*notes, *source.notes))


def _renamed(source: Source) -> Source:
    """With another name for every output that has the name of an input: no ONNX graph holds both."""
    taken = {spec.name for spec in (*source.inputs, *source.outputs)}
    shared = [spec.name for spec in source.outputs if spec.name in {t.name for t in source.inputs}]
    if not shared or source.flatbuffer is not None:  # a .tflite keeps its own signature
        return source
    unique = identifiers([*taken, *(f"{name}_out" for name in shared)])[len(taken) :]
    new = {**{name: name for name in taken}, **dict(zip(shared, unique, strict=True))}
    original = source.call

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        return {new[name]: value for name, value in original(arrays).items()}

    notes = [f"The output {name!r} has the name of an input, so it is called {new[name]!r}." for name in shared]
    outputs = tuple(replace(spec, name=new[spec.name]) for spec in source.outputs)
    return replace(source, outputs=outputs, call=call, notes=(*source.notes, *notes))


def _check_tensor(path: Path, spec: TensorSpec) -> None:
    if spec.dtype == "string":
        raise ModelError(f"{path}: the tensor {spec.name!r} is text, which no runtime on a device takes", advice=LOOKUP)
    if spec.dtype not in DTYPES:
        raise ModelError(
            f"{path}: the tensor {spec.name!r} is {spec.dtype}", advice=f"Supported types: {', '.join(sorted(DTYPES))}."
        )
    size = math.prod(1 if d is None else d for d in spec.shape) * np.dtype(spec.dtype).itemsize
    if not 0 < size <= LIMIT_BYTES:
        raise ModelError(
            f"{path}: the tensor {spec.name!r} of shape {list(spec.shape)} has {size} bytes",
            advice=f"Expected 1 to {LIMIT_BYTES}.",
        )


def _guarded(path: Path, call: Call) -> Call:
    def run(arrays: Arrays) -> dict[str, np.ndarray]:
        try:
            return call(arrays)
        except ModelError as e:
            raise e.at(str(path)) from e
        except Exception as e:  # of TensorFlow or LiteRT: a graph that loads need not run
            reason = one_line(e)
            raise ModelError(
                f"{path} cannot be run ({type(e).__name__}: {reason})",
                advice="Check that the model runs where it was trained.",
            ) from e

    return run


def _open_onnx(path: Path, signature: str | None, settings: InputSettings) -> Source:
    from edgeloop.convert.sources.onnx_source import open_onnx

    if signature not in (None, INFER):
        raise ModelError(
            f"{path} is an ONNX model, whose only signature is {INFER!r}; --signature is {signature!r}",
            advice="Leave --signature out.",
        )
    return open_onnx(path, settings)


OPENERS: dict[SourceKind, Callable[[Path, str | None, bool], Source]] = {
    SourceKind.KERAS: open_keras,
    SourceKind.SAVEDMODEL: open_saved_model,
    SourceKind.TFLITE: open_tflite,
    SourceKind.TFJS: open_tfjs,
}

__all__ = [
    "INFER",
    "OPENERS",
    "Arrays",
    "Source",
    "SourceKind",
    "functional",
    "identifiers",
    "identify",
    "keras_source",
    "open_source",
    "source_digest",
]
