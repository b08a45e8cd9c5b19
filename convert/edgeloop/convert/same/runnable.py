"""Any model file as a function of named arrays: run by its own runtime, with real numbers at its ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Format, Quantization, Scheme, TensorSpec, is_bundle, read_bundle
from edgeloop.convert.forms.tflite_file import stored_io, stored_scheme
from edgeloop.convert.sources.identify import model_of
from edgeloop.convert.sources.safety import check_safety
from edgeloop.convert.sources.source import INFER, Source, SourceKind, identify, open_source
from edgeloop.convert.sources.source_value import Call, tensor_specs
from edgeloop.convert.sources.tfjs_files import WEIGHTS, model_file, read_model
from edgeloop.errors import MissingExtra, ModelError, OptionsError, one_line
from edgeloop.extras import need
from edgeloop.runtime.parity.quantization import from_io, to_io
from edgeloop.runtime.runners import runners
from edgeloop.runtime_table import LITERT, ONNXRUNTIME, TENSORFLOW

# TF.js has no other integers: whatever a signature calls them, its graph takes and gives 32 bits
TFJS_DTYPES = {f"DT_{kind}": "int32" for kind in ("INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64")}
TFJS_DTYPES |= {"DT_FLOAT": "float32", "DT_BOOL": "bool"}
TFJS_WEIGHTS = {"float16": Scheme.FLOAT16, "uint8": Scheme.DYNAMIC, "uint16": Scheme.DYNAMIC}
ONNX_DTYPES = {"float": "float32", "double": "float64", "float16": "float16"}
ONNX_PAIRS = frozenset({"QuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """One signature of one model.

    Attributes:
        runtime: Name of what runs it, as the table of runtimes has it, or "tfjs".
        scheme: How its weights are stored, which decides how closely it can agree.
        source: Where convert/ can open it: a Keras model, a SavedModel or a .tflite.
        notes: What a user should know of how it was read: what was allowed, which Keras read it.
    """

    path: Path
    runtime: str
    scheme: Scheme
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Call
    source: Source | None = None
    notes: tuple[str, ...] = ()


def compared_file(path: Path) -> Path:
    """The path as it is; of a bundle the file of its float32 .tflite, or of its first variant."""
    if not is_bundle(path):
        return path
    variants = read_bundle(path).variants
    floats = [v for v in variants if v.format is Format.TFLITE and v.scheme is Scheme.FLOAT32]
    return path / (floats or variants)[0].entry


@contextlib.contextmanager
def open_runnable(path: Path, signature: str | None = None, *, allow_unsafe: bool = False) -> Iterator[Runnable]:
    """Load a model for as long as the context lasts, after the same look at it that `convert` takes.

    Raises:
        ModelError: No model, hostile, or its runtime refuses it.
        MissingExtra: Its runtime is not installed.
    """
    path = model_of(path)
    kind = identify(path)
    if kind is SourceKind.TFJS:
        with _tfjs(path, signature, allow_unsafe) as model:
            yield model
    elif kind is SourceKind.ONNX:
        notes = check_safety(path, kind, allow_unsafe)
        yield replace(_onnx(path, signature), notes=notes)
    else:
        yield _source(open_source(path, signature, allow_unsafe=allow_unsafe))


def _source(source: Source) -> Runnable:
    if source.flatbuffer is None:
        return Runnable(
            path=source.path,
            runtime=TENSORFLOW.name,
            scheme=Scheme.FLOAT32,
            inputs=source.inputs,
            outputs=source.outputs,
            call=source.call,
            source=source,
            notes=source.notes,
        )
    io = {name: q for name, q in stored_io(source.flatbuffer).items() if q.scale}

    def call(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return from_io(source.call(to_io(arrays, io)), io)

    return Runnable(
        path=source.path,
        runtime=LITERT.name,
        scheme=stored_scheme(source.path.read_bytes()),  # of the file itself: the source unpacks float16
        inputs=_real(source.inputs, io),
        outputs=_real(source.outputs, io),
        call=call,
        source=source,
        notes=source.notes,
    )


def _real(specs: tuple[TensorSpec, ...], io: Mapping[str, Quantization]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, dtype="float32") if spec.name in io else spec for spec in specs)


def _onnx(path: Path, signature: str | None) -> Runnable:
    if signature not in (None, INFER):
        raise OptionsError(f"{path} is an ONNX model, which has no signatures", advice="Leave --signature out.")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ort, onnx = need("onnxruntime", extra="convert"), need("onnx", extra="convert")
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        operators = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    except Exception as e:  # both raise many types, each of which means that the file cannot be loaded
        raise ModelError(
            f"ONNX Runtime cannot load it: {one_line(e)}", advice="Export the model again.", where=str(path)
        ) from e
    inputs, outputs = ([_onnx_spec(t) for t in side] for side in (session.get_inputs(), session.get_outputs()))
    names = [spec.name for spec in outputs]

    def call(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {spec.name: np.asarray(arrays[spec.name], spec.dtype) for spec in inputs}
        try:
            return dict(zip(names, session.run(names, given), strict=True))
        except Exception as e:  # its own types
            raise ModelError(
                f"ONNX Runtime cannot run it: {one_line(e)}",
                advice="Pass inputs of the sizes it was exported for with --eval F.npz.",
                where=str(path),
            ) from e

    return Runnable(
        path=path,
        runtime=ONNXRUNTIME.name,
        scheme=Scheme.INT8 if operators & ONNX_PAIRS else Scheme.FLOAT32,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        call=call,
    )


def _onnx_spec(tensor: Any) -> TensorSpec:
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(d if isinstance(d, int) and d > 0 else None for d in tensor.shape)
    return TensorSpec(tensor.name, shape, ONNX_DTYPES.get(kind, kind))


@contextlib.contextmanager
def _tfjs(path: Path, signature: str | None, allow_unsafe: bool) -> Iterator[Runnable]:
    """A graph model in TF.js; in TensorFlow a layers model, and a graph that names no inputs and outputs."""
    notes = check_safety(path, SourceKind.TFJS, allow_unsafe)
    model = read_model(path)
    stored = {
        weight["quantization"]["dtype"]
        for group in model.get(WEIGHTS) or []
        for weight in group["weights"]
        if "quantization" in weight
    }
    scheme = next((TFJS_WEIGHTS[name] for name in sorted(stored) if name in TFJS_WEIGHTS), Scheme.FLOAT32)
    ends = model.get("signature") or {}
    if not ends.get("inputs") or not ends.get("outputs"):
        yield replace(_source(open_source(path, signature, allow_unsafe=allow_unsafe)), scheme=scheme)
        return
    if signature not in (None, INFER):
        raise OptionsError(f"{path} is a TF.js model, which has one signature", advice="Leave --signature out.")
    runner = runners().get("tfjs")
    if runner is None:
        raise MissingExtra(
            "TF.js models run in edgeloop's browser part, which is not installed",
            advice="Run: pip install 'edgeloop[browser]'",
        )
    file = model_file(path)
    with runner.open(file.parent, file.name) as session:
        yield Runnable(
            path=path,
            runtime="tfjs",
            scheme=scheme,
            inputs=_tfjs_specs(ends["inputs"]),
            outputs=_tfjs_specs(ends["outputs"]),
            call=lambda arrays: dict(session.infer(arrays, None)),
            notes=notes,
        )


def _tfjs_specs(ends: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    shapes = []
    for end in ends.values():
        dims = [int(d.get("size", -1)) for d in end.get("tensorShape", {}).get("dim", [])]
        shapes.append((tuple(None if d < 0 else d for d in dims), TFJS_DTYPES.get(end.get("dtype"), "float32")))
    return tensor_specs(list(ends), shapes)
