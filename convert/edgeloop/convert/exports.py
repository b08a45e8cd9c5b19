"""A source in, the files of its variants out, not yet proved: each with what the manifest will say of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.answer import Progress
from edgeloop.bundle import Format, Quantization, Scheme, Variant
from edgeloop.convert import freeze, onnx, tflite
from edgeloop.convert.samples import Samples
from edgeloop.convert.source import Source
from edgeloop.convert.tfjs import TfjsConverter
from edgeloop.convert.trainable import TrainableOptions, to_trainable
from edgeloop.edge.flatbuffer import float_operators, read_tflite
from edgeloop.errors import ModelError, OptionsError

TRAINABLE = "trainable"
STEPS = 6  # open, lower, quantize, ONNX, TF.js, trainable
STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make of a source.

    Attributes:
        named: Formats the user asked for by name: one that cannot be made is an error, any other becomes a note.
        schemes: None for a .tflite that is taken as it is.
    """

    formats: frozenset[Format]
    named: frozenset[Format]
    schemes: tuple[Scheme, ...] | None
    calibration: Samples | None
    trainable: TrainableOptions | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A variant and the content of its files by path."""

    variant: Variant
    files: dict[str, bytes]


def exports(
    source: Source, plan: Plan, javascript: TfjsConverter | None, notes: list[str], progress: Progress
) -> Iterator[Draft]:
    """Make what the plan names, one after another; what an optional format cannot hold goes into `notes`.

    Raises:
        ModelError: A format that was asked for by name, or TFLite, cannot hold the model.
    """
    frozen = freeze.freeze(source) if source.graph is not None else None
    progress("convert", 1, STEPS)
    if Format.TFLITE in plan.formats:
        yield from _tflites(source, frozen, plan, progress)
    progress("convert", 3, STEPS)
    for step, (format, make) in enumerate(_optional(source, frozen, javascript).items(), start=4):
        if format in plan.formats:
            try:
                yield make()
            except ModelError as e:
                if format in plan.named:
                    raise
                notes.append(f"{format.value} was not written: {e}")
        progress("convert", step, STEPS)
    if plan.trainable is not None:
        data = to_trainable(source.model, plan.trainable)
        names = tuple(s.name for s in read_tflite(data).signatures)
        note = "every signature runs at the batch of train"
        yield _draft(TRAINABLE, Format.TFLITE, Scheme.FLOAT32, names, {"trainable.tflite": data}, note)
    progress("convert", STEPS, STEPS)


def stored_scheme(data: bytes) -> Scheme:
    """What a flatbuffer's constants say it is, whatever its name."""
    constants = {
        t.dtype for g in read_tflite(data).graphs for t in g.tensors if t.constant_bytes and t.dtype != "int32"
    }
    if not float_operators(data):
        return Scheme.INT8
    if "float16" in constants:
        return Scheme.FLOAT16
    return Scheme.DYNAMIC if constants & {"int8", "uint8", "int4"} else Scheme.FLOAT32


def as_it_is(data: bytes) -> bool:
    """Whether a .tflite can only be taken as it is: its weights are no longer float32, or it keeps state."""
    operators = {op.name for graph in read_tflite(data).graphs for op in graph.operators}
    return stored_scheme(data) is not Scheme.FLOAT32 or bool(operators & STATE)


def _tflites(source: Source, frozen: Any, plan: Plan, progress: Progress) -> Iterator[Draft]:
    if plan.schemes is None and source.flatbuffer is not None:
        scheme = stored_scheme(source.flatbuffer)
        names = tuple(s.name for s in read_tflite(source.flatbuffer).signatures)
        yield _draft(scheme.value, Format.TFLITE, scheme, names, {f"{scheme.value}.tflite": source.flatbuffer})
        return
    float32 = tflite.lower(frozen, source) if source.flatbuffer is None else source.flatbuffer
    progress("convert", 2, STEPS)
    ranges = None
    if Scheme.INT8 in (plan.schemes or ()) and plan.calibration is not None:
        ranges = tflite.calibrate(float32, source, plan.calibration.inputs, progress)
    for scheme in plan.schemes or ():
        data = tflite.quantize(float32, scheme, ranges)
        yield _draft(scheme.value, Format.TFLITE, scheme, (source.signature,), {f"{scheme.value}.tflite": data})


def _optional(source: Source, frozen: Any, javascript: TfjsConverter | None) -> dict[Format, Any]:
    def to_onnx() -> Draft:
        data = onnx.to_onnx(frozen, source) if frozen else onnx.tflite_to_onnx(source.flatbuffer or b"", source)
        return _draft("onnx", Format.ONNX, Scheme.FLOAT32, (source.signature,), {"model.onnx": data})

    def to_tfjs() -> Draft:
        if javascript is None or frozen is None:
            raise OptionsError(
                "a .tflite does not become TF.js. Start from the Keras model, or leave tfjs out of --to."
            )
        with tempfile.TemporaryDirectory() as scratch:
            javascript.convert(frozen, source, Path(scratch))
            files = {f"tfjs/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}
        return _draft("tfjs", Format.TFJS, Scheme.FLOAT32, (source.signature,), files)

    return {Format.ONNX: to_onnx, Format.TFJS: to_tfjs}


def _draft(
    id: str, format: Format, scheme: Scheme, signatures: Sequence[str], files: dict[str, bytes], *notes: str
) -> Draft:
    entry = "tfjs/model.json" if format is Format.TFJS else next(iter(files))
    ends = _ends(files[entry]) if format is Format.TFLITE else {}
    return Draft(Variant(id, entry, tuple(sorted(files)), format, scheme, tuple(signatures), ends, notes=notes), files)


def _ends(data: bytes) -> dict[str, Quantization]:
    """What the tensors at the ends of every signature hold."""
    model = read_tflite(data)
    ends = [(s.graph, item) for s in model.signatures for item in (*s.inputs.items(), *s.outputs.items())]
    tensors = {name: model.graphs[graph].tensors[index] for graph, (name, index) in ends}
    return {
        name: Quantization(t.dtype, t.scale[0] if t.scale else 0.0, t.zero_point[0] if t.zero_point else 0)
        for name, t in tensors.items()
    }
