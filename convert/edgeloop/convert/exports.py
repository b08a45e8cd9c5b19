"""A source in, the files of its variants out, not yet proved: each with what the manifest will say of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import TRAINABLE, Format, Scheme, Variant
from edgeloop.canonical import canonical_json
from edgeloop.convert.calls import fixed_batch, in_batches
from edgeloop.convert.form import Form, FormLog, onnx_forms, tfjs_form, tflite_forms
from edgeloop.convert.forms import onnx, tflite
from edgeloop.convert.forms.freeze import FrozenSource, at_batch, freeze
from edgeloop.convert.forms.half import check_half, values_beyond
from edgeloop.convert.forms.onnx_int8 import to_int8
from edgeloop.convert.forms.preprocess import preprocess_tensors
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.forms.tflite_file import float32_share, stored_io, stored_scheme
from edgeloop.convert.options import MEASURED, ConvertOptions
from edgeloop.convert.plan import ConversionPlan, needs_ranges
from edgeloop.convert.search.mix import MixSearchJob, find_mix
from edgeloop.convert.search.pareto import search_document
from edgeloop.convert.sources.shapes import has_free_batch, with_batch
from edgeloop.convert.sources.source import Source
from edgeloop.convert.sources.tflite_source import tflite_call
from edgeloop.convert.training.trainable import check_options, to_trainable
from edgeloop.errors import ModelError, OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.progress import Progress, Say

SEARCH = "search.json"  # what a search measured; it lies beside the bundle
SHARE_WORTH_A_NOTE = 0.25
FUSED_SAMPLES = 16
STEPS = 6  # open, lower, quantize, ONNX, TF.js, trainable
TFJS_SCHEMES = {"float32": Scheme.FLOAT32, "float16": Scheme.FLOAT16, "uint8": Scheme.DYNAMIC}


@dataclass(frozen=True, slots=True)
class ExportedVariant:
    """A variant and the content of its files by path; `beside` are files that measure, and stay out of a bundle."""

    variant: Variant
    files: dict[str, bytes]
    beside: dict[str, bytes] = field(default_factory=dict)


def export_variants(source: Source, plan: ConversionPlan, log: FormLog, progress: Progress) -> list[ExportedVariant]:
    """Make the forms of the plan, one after another. One that cannot be made is left out, unless it was named.

    Raises:
        ModelError: A form that was named, or every form, cannot hold the model.
    """
    frozen = freeze(source) if source.graph is not None else None
    made: list[ExportedVariant] = []
    progress("convert", 1, STEPS)
    makers = (_tflites, _onnx, _tfjs)
    for step, make in enumerate(makers, start=3):
        made += make(source, frozen, plan, log, progress)
        progress("convert", step, STEPS)
    if plan.options.trainable is not None:
        made.append(_trainable(source, plan))
    progress("convert", STEPS, STEPS)
    if not made and log.first is not None:
        raise log.first
    return made


def _tflites(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.TFLITE not in plan.formats:
        return []
    if plan.schemes is None and source.flatbuffer is not None:
        scheme = stored_scheme(source.flatbuffer)
        names = tuple(s.name for s in read_tflite(source.flatbuffer).signatures)
        files = {f"{scheme.value}.tflite": source.flatbuffer}
        return [export_variant(scheme.value, Format.TFLITE, scheme, names, files)]
    forms = tflite_forms(plan.schemes or (), plan.options)
    made: list[ExportedVariant] = []
    free = source
    with log.leave_out(forms):
        float32, source = _lowered(source, frozen, plan, log)
        progress("convert", 2, STEPS)
        measured = [form for form in forms if form.scheme in MEASURED]
        calibration = None
        if needs_ranges(plan) and plan.calibration is not None:
            with log.leave_out([] if plan.options.search else measured):
                calibration = tflite.calibrate(float32, source, plan.calibration, progress)
        job = _TfliteJob(source, float32, calibration, plan.expected, log.say)
        for form in forms:
            if form.scheme in MEASURED and calibration is None:
                continue
            with log.leave_out([form]):
                made.append(_tflite(job, form))
        # asked for nothing in particular: what int8 can hold in part is better than nothing in integers
        if plan.options.schemes is None and calibration is not None and not any(v.variant.id == "int8" for v in made):
            mixed = Form(id=Scheme.MIXED.value, format=Format.TFLITE, scheme=Scheme.MIXED)
            with contextlib.suppress(ModelError):  # why is said of int8 already
                made.append(_tflite(job, mixed))
                log.say(f"mixed was written instead of int8: {made[-1].variant.notes[0]}.")
        if plan.options.search is not None:
            made.append(_searched(source, plan, float32, calibration, made, log, progress))
    return [replace(one, variant=_with_shapes(one.variant, free, source)) for one in made]


def _lowered(source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog) -> tuple[bytes, Source]:
    """The float32 .tflite, and the source at the batch that it has: TFLite runs no loop of a recurrent layer over a
    free batch."""
    if frozen is None:
        if plan.options.batch is not None:
            raise _no_such_batch(plan.options.batch, source)
        assert source.flatbuffer is not None  # a source has the one or the other
        return source.flatbuffer, source
    can_fix = has_free_batch(source.inputs) and not plan.samples.whole
    if plan.options.batch is not None:
        if not can_fix and plan.options.batch != fixed_batch(source.inputs):
            raise _no_such_batch(plan.options.batch, source)
        source = with_batch(source, plan.options.batch)
        return tflite.lower(at_batch(freeze(source), plan.options.batch), source), source
    try:
        return _with_fused(frozen, source, plan), source
    except ModelError as refused:
        batch = 1 if can_fix else fixed_batch(source.inputs)
        if batch is None:
            raise
        own = with_batch(source, batch)
        try:
            data = tflite.lower(at_batch(frozen if own is source else freeze(own), batch), own)
        except ModelError:
            raise refused from None  # the batch was not what it failed at
    if can_fix:
        log.say(
            "The .tflite files have a fixed batch of 1, because TFLite cannot run this model with a free batch. "
            "Pass --batch N for another."
        )
    return data, own


def _with_fused(frozen: FrozenSource, source: Source, plan: ConversionPlan) -> bytes:
    """With fused operators where they compute what the source does; else with the loops that they stand for.

    NON_MAX_SUPPRESSION_V4 takes a box's corners in order, TensorFlow in any; the loop is 100 times the size.
    """
    if frozen.composite is not frozen.functional:
        with contextlib.suppress(ModelError):
            data = tflite.lower(frozen.composite, source)
            few = plan.samples.take(FUSED_SAMPLES)
            got = in_batches(tflite_call(data, source.signature, source.path), few, fixed_batch(source.inputs))
            if all(_equal(got[name], plan.expected[name][: len(few)]) for name in got):
                return data
    return tflite.lower(frozen.functional, source)


def _equal(got: np.ndarray, expected: np.ndarray) -> bool:
    atol = 1e-4 * float(np.abs(expected).max(initial=0))
    return got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=atol)


def _no_such_batch(batch: int, source: Source) -> OptionsError:
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in source.inputs)
    return OptionsError(
        f"--batch is {batch}, and the model has no free batch that it could fix: {shapes}", advice="Leave --batch out."
    )


def _with_shapes(variant: Variant, free: Source, own: Source) -> Variant:
    """The variant with the shapes that it does not share with the signature."""
    pairs = zip((*free.inputs, *free.outputs), (*own.inputs, *own.outputs), strict=True)
    shapes = {mine.name: mine.shape for spec, mine in pairs if spec.shape != mine.shape}
    if not shapes:
        return variant
    return replace(variant, shapes=shapes, notes=(*variant.notes, f"batch {own.inputs[0].shape[0]}"))


@dataclass(slots=True)
class _TfliteJob:
    """What every .tflite of one source is made of; int8 and mixed are one file, made once."""

    source: Source
    float32: bytes
    calibration: tflite.Calibration | None
    expected: Mapping[str, np.ndarray]
    say: Say
    integers: dict[tuple[Scheme, Io], tflite.IntegerFile] = field(default_factory=dict)

    def to_integers(self, scheme: Scheme, io: Io) -> tflite.IntegerFile:
        key = scheme, io
        if key not in self.integers:
            self.integers[key] = tflite.to_integers(self.float32, scheme, self.calibration, io=io)
        return self.integers[key]


def _tflite(job: _TfliteJob, form: Form) -> ExportedVariant:
    """One .tflite.

    Raises:
        ModelError: It cannot be made, or the scheme's name would promise what is not inside.
    """
    notes: tuple[str, ...] = ()
    if form.scheme is Scheme.MIXED:
        made = job.to_integers(Scheme.INT8, Io.FLOAT32)
        data, notes = made.data, (f"int8, but {tflite.kept_in_float(made)}", *made.notes)
    elif form.scheme in MEASURED:
        made = job.to_integers(form.scheme, form.io)
        if made.left:
            raise tflite.not_in_integers(made, form.scheme)
        data, notes = made.data, made.notes
    else:
        data = tflite.quantize(job.float32, form.scheme, job.calibration, io=form.io)
        if form.scheme is not Scheme.FLOAT32 and float32_share(data) >= SHARE_WORTH_A_NOTE:
            notes = (f"{float32_share(data):.0%} of the bytes of its constants stayed float32",)
    stored = stored_scheme(data)
    if stored is not form.scheme:  # without weights, or with small ones only
        raise ModelError(
            f"no operator of this model becomes {form.scheme.value}: the file would be {stored.value}",
            advice=f"Leave {form.scheme.value} out of --schemes.",
        )
    if form.scheme is Scheme.FLOAT16:
        check_half(job.float32, data)
        beyond = values_beyond(job.calibration.ranges if job.calibration else {}, job.expected)
        for note in beyond:
            job.say(f"{form.id}: {note}.")
        notes += beyond
    return export_variant(
        form.id, Format.TFLITE, form.scheme, (job.source.signature,), {f"{form.id}.tflite": data}, *notes
    )


def _searched(
    source: Source,
    plan: ConversionPlan,
    float32: bytes,
    calibration: tflite.Calibration | None,
    made: Sequence[ExportedVariant],
    log: FormLog,
    progress: Progress,
) -> ExportedVariant:
    """The smallest mix within the budget; under the name `best` where it is a plain scheme that is made already."""
    assert plan.options.search is not None and calibration is not None  # ConvertOptions sees to it
    job = MixSearchJob(
        float32=float32,
        calibration=calibration,
        signature=source.signature,
        samples=plan.samples,
        expected=plan.expected,
        batch=fixed_batch(source.inputs),
        min_snr_db=plan.options.prove.min_snr_db,
    )
    mix = find_mix(job, plan.options.search, plan.journal, progress)
    best = mix.found.best
    scheme = Scheme.MIXED if best.keep else best.scheme
    log.say(
        f"The search tried {len(mix.found.tried)} mixes. The smallest within "
        f"{mix.metric.limit(plan.options.search.max_drop_pp)} is {best.label}."
    )
    beside = {SEARCH: canonical_json(search_document(mix.found))}
    id = "best" if scheme.value in {one.variant.id for one in made} else scheme.value
    one = export_variant(id, Format.TFLITE, scheme, (source.signature,), {f"{id}.tflite": mix.data}, best.label)
    return replace(one, beside=beside)


def _onnx(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.ONNX not in plan.formats:
        return []
    made: list[ExportedVariant] = []
    float32, *int8 = forms = onnx_forms(plan.schemes or (), plan.options)
    with log.leave_out(forms):
        data = (
            onnx.to_onnx(frozen.functional, source) if frozen else onnx.tflite_to_onnx(source.flatbuffer or b"", source)
        )
        made.append(export_variant(float32.id, Format.ONNX, float32.scheme, (source.signature,), {"model.onnx": data}))
        for form in int8:
            assert plan.calibration is not None  # onnx_forms sees to it
            with log.leave_out([form]):
                small = to_int8(data, plan.calibration, fixed_batch(source.inputs))
                files = {"model-int8.onnx": small}
                made.append(export_variant(form.id, Format.ONNX, form.scheme, (source.signature,), files))
    return made


def _tfjs(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.TFJS not in plan.formats:
        return []
    assert frozen is not None  # wanted_formats sees to it
    form = tfjs_form(TFJS_SCHEMES[plan.options.tfjs.weights.value], plan.options)
    made: list[ExportedVariant] = []
    with log.leave_out([form]), tempfile.TemporaryDirectory() as scratch:
        to_tfjs(frozen.lowered, source, Path(scratch), plan.options.tfjs)
        files = {f"tfjs/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}
        made.append(export_variant(form.id, Format.TFJS, form.scheme, (source.signature,), files))
    return made


def check_trainable(source: Source, options: ConvertOptions) -> tuple[str, ...]:
    """What keeps `source` from training on a device, before anything costs time.

    Returns:
        What a user should know, one line each.

    Raises:
        ModelError, OptionsError: As `to_trainable`.
    """
    if options.trainable is None:
        return ()
    if source.model is None:
        raise ModelError(
            f"{source.path} can be read by tf-keras only, and --trainable needs a Keras 3 model",
            advice="Save it again as .keras, or leave --trainable out.",
        )
    idle = check_options(source.model, options.trainable, source.inputs)
    if not idle:
        return ()
    return (f"Training on a device runs {', '.join(idle)} as inference does: it does not augment or draw noise.",)


def _trainable(source: Source, plan: ConversionPlan) -> ExportedVariant:
    assert plan.options.trainable is not None
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
