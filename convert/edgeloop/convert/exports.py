"""A source in, the files of its variants out, not yet proved: each with what the manifest will say of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.canonical import canonical_json
from edgeloop.convert.forms import onnx, tflite
from edgeloop.convert.forms.freeze import FrozenGraph, freeze
from edgeloop.convert.forms.onnx_int8 import float_operators_onnx, to_int8
from edgeloop.convert.forms.preprocess import preprocess_tensors
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.forms.tflite_file import stored_io, stored_scheme
from edgeloop.convert.plan import ConversionPlan, needs_ranges
from edgeloop.convert.search.mix import MixSearchJob, find_mix
from edgeloop.convert.search.pareto import search_document
from edgeloop.convert.sources.source import Source
from edgeloop.convert.training.trainable import to_trainable
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.progress import Progress, Say

TRAINABLE = "trainable"
SEARCH = "search.json"  # what a search measured; it lies beside the bundle
STEPS = 6  # open, lower, quantize, ONNX, TF.js, trainable
TFJS_SCHEMES = {"float32": Scheme.FLOAT32, "float16": Scheme.FLOAT16, "uint8": Scheme.DYNAMIC}


@dataclass(frozen=True, slots=True)
class ExportedVariant:
    """A variant and the content of its files by path; `beside` are files that measure, and stay out of a bundle."""

    variant: Variant
    files: dict[str, bytes]
    beside: dict[str, bytes] = field(default_factory=dict)


def export_variants(source: Source, plan: ConversionPlan, say: Say, progress: Progress) -> Iterator[ExportedVariant]:
    """Make what the plan names, one after another; what was not asked for by name and cannot be made is said.

    Raises:
        ModelError: A format that was asked for by name, or TFLite, cannot hold the model.
    """
    frozen = freeze(source) if source.graph is not None else None
    progress("convert", 1, STEPS)
    if Format.TFLITE in plan.formats:
        yield from _tflites(source, frozen, plan, say, progress)
    progress("convert", 3, STEPS)
    optional: dict[Format, Callable[[], Iterator[ExportedVariant]]] = {
        Format.ONNX: lambda: _onnx(source, frozen, plan, say),
        Format.TFJS: lambda: _tfjs(source, frozen, plan),
    }
    for step, (format, make) in enumerate(optional.items(), start=4):
        if format in plan.formats:
            try:
                yield from make()
            except ModelError as e:
                if format in plan.named:
                    raise
                say(f"{format.value} was not written: {e}")
        progress("convert", step, STEPS)
    if plan.options.trainable is not None:
        yield _trainable(source, plan)
    progress("convert", STEPS, STEPS)


def _tflites(
    source: Source, frozen: FrozenGraph | None, plan: ConversionPlan, say: Say, progress: Progress
) -> Iterator[ExportedVariant]:
    if plan.schemes is None and source.flatbuffer is not None:
        scheme = stored_scheme(source.flatbuffer)
        names = tuple(s.name for s in read_tflite(source.flatbuffer).signatures)
        yield export_variant(scheme.value, Format.TFLITE, scheme, names, {f"{scheme.value}.tflite": source.flatbuffer})
        return
    float32 = source.flatbuffer if frozen is None else tflite.lower(frozen, source)
    assert float32 is not None
    progress("convert", 2, STEPS)
    calibration = None
    if needs_ranges(plan) and plan.calibration is not None:
        calibration = tflite.calibrate(float32, source, plan.calibration, progress)
    made = []
    for scheme in plan.schemes or ():
        for io in plan.options.io if scheme is Scheme.INT8 else (Io.FLOAT32,):
            id = scheme.value if io is Io.FLOAT32 else f"{scheme.value}-io"
            try:
                data = _quantized(float32, scheme, calibration, io)
            except ModelError as e:
                if plan.options.schemes is not None:
                    raise
                say(f"{id} was not written: {e}")
                continue
            made.append(id)
            yield export_variant(id, Format.TFLITE, scheme, (source.signature,), {f"{id}.tflite": data})
    if plan.options.search is not None:
        yield from _searched(source, plan, float32, calibration, made, say, progress)


def _quantized(float32: bytes, scheme: Scheme, calibration: tflite.Calibration | None, io: Io) -> bytes:
    """As `tflite.quantize`; raises ModelError too where the scheme's name would promise what is not inside."""
    data = tflite.quantize(float32, scheme, calibration, io=io)
    stored = stored_scheme(data)
    if stored is not scheme:  # without weights, or with small ones only
        raise ModelError(
            f"no operator of this model becomes {scheme.value}: the file would be {stored.value}",
            advice=f"Leave {scheme.value} out of --schemes.",
        )
    return data


def _searched(
    source: Source,
    plan: ConversionPlan,
    float32: bytes,
    calibration: tflite.Calibration | None,
    made: Sequence[str],
    say: Say,
    progress: Progress,
) -> Iterator[ExportedVariant]:
    """The smallest mix within the budget; under the name `best` where it is a plain scheme that is made already."""
    assert plan.options.search is not None and calibration is not None  # ConvertOptions sees to it
    job = MixSearchJob(
        float32=float32,
        calibration=calibration,
        signature=source.signature,
        samples=plan.samples,
        expected=plan.expected,
        batch=source.inputs[0].shape[0],
        min_snr_db=plan.options.prove.min_snr_db,
    )
    mix = find_mix(job, plan.options.search, plan.journal, progress)
    best = mix.found.best
    scheme = Scheme.MIXED if best.keep else best.scheme
    say(
        f"The search tried {len(mix.found.tried)} mixes. The smallest within "
        f"{plan.options.search.max_drop_pp:g} points of {mix.metric.value} is {best.label}."
    )
    beside = {SEARCH: canonical_json(search_document(mix.found, mix.metric.value))}
    id = "best" if scheme.value in made else scheme.value
    one = export_variant(id, Format.TFLITE, scheme, (source.signature,), {f"{id}.tflite": mix.data}, best.label)
    yield replace(one, beside=beside)


def _onnx(source: Source, frozen: FrozenGraph | None, plan: ConversionPlan, say: Say) -> Iterator[ExportedVariant]:
    data = onnx.to_onnx(frozen, source) if frozen else onnx.tflite_to_onnx(source.flatbuffer or b"", source)
    yield export_variant("onnx", Format.ONNX, Scheme.FLOAT32, (source.signature,), {"model.onnx": data})
    if plan.calibration is not None and Scheme.INT8 in (plan.schemes or ()):
        data = to_int8(data, plan.calibration, source.inputs[0].shape[0])
        left = float_operators_onnx(data)
        if left:
            say(f"onnx-int8 was not written: {'; '.join(map(str, left))}.")
            return
        yield export_variant("onnx-int8", Format.ONNX, Scheme.INT8, (source.signature,), {"model-int8.onnx": data})


def _tfjs(source: Source, frozen: FrozenGraph | None, plan: ConversionPlan) -> Iterator[ExportedVariant]:
    assert frozen is not None  # wanted_formats sees to it
    with tempfile.TemporaryDirectory() as scratch:
        to_tfjs(frozen, source, Path(scratch), plan.options.tfjs)
        files = {f"tfjs/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    scheme = TFJS_SCHEMES[plan.options.tfjs.weights.value]
    yield export_variant("tfjs", Format.TFJS, scheme, (source.signature,), files)


def _trainable(source: Source, plan: ConversionPlan) -> ExportedVariant:
    assert plan.options.trainable is not None
    if source.model is None:
        raise ModelError(
            f"{source.path} can be read by tf-keras only, and --trainable needs a Keras 3 model",
            advice="Save it again as .keras, or leave --trainable out.",
        )
    inside = plan.options.preprocess
    prepare = None if inside is None else lambda values: preprocess_tensors(inside, values, plan.own_inputs)
    data = to_trainable(source.model, plan.options.trainable, preprocess=prepare, inputs=source.inputs)
    names = tuple(s.name for s in read_tflite(data).signatures)
    note = "every signature runs at the batch of train"
    return export_variant(TRAINABLE, Format.TFLITE, Scheme.FLOAT32, names, {"trainable.tflite": data}, note)


def export_variant(
    id: str, format: Format, scheme: Scheme, signatures: Sequence[str], files: dict[str, bytes], *notes: str
) -> ExportedVariant:
    """The variant of these files; the first one, or model.json, is what a runtime opens."""
    entry = "tfjs/model.json" if format is Format.TFJS else next(iter(files))
    io = stored_io(files[entry]) if format is Format.TFLITE else {}
    return ExportedVariant(
        Variant(id, entry, tuple(sorted(files)), format, scheme, tuple(signatures), io, notes=notes), files
    )
